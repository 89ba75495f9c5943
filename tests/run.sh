#!/usr/bin/env bash
# Runs every test: starts PostgreSQL and Redis of its own on free ports with private data directories, runs the Rust tests, then the
# third-party clients, and stops what it started, also on failure.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$(date +%s)
step() { printf '\n== %s (%ss)\n' "$1" "$(($(date +%s) - started))"; }

step "third-party clients"
tests/venv.sh
step "build"
cargo build --locked --workspace --all-targets
step "servers"
trap 'tests/servers.sh stop' EXIT
eval "$(tests/servers.sh start)"
step "Rust tests"
cargo test --locked --workspace
step "judges that are not ours"
target/venv/bin/python -m pytest -q tests/judges
step "done"
