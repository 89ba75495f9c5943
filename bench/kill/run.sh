#!/usr/bin/env bash
# The drills on real processes, built with the profile `quick`; what follows is for lastmile-drill:
#   bench/kill/run.sh points --rounds 20                                 dies at every crash point that the binary names
#   bench/kill/run.sh load --cases 10000 --clients 64 --kills 50         kill -9 at random moments under load
#   bench/kill/run.sh load --split …                                     the same with a process per role on PostgreSQL and Redis
# --seed N repeats what was drawn. Progress goes to standard error, the figures as JSON to standard output.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --locked --profile quick -p lastmile -p lastmile-tests --bin lastmile --bin lastmile-drill >&2
exec "${CARGO_TARGET_DIR:-target}/quick/lastmile-drill" "$@"
