#!/usr/bin/env bash
# Runs the judges whose installs are too large for `make test`: clients from npm, pinned by tests/judges/node/package-lock.json. Nothing
# is skipped: without Node.js 18 or newer, which it tries to install, it fails.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v npm >/dev/null; then
    echo "installing nodejs and npm"
    as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
    as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null
fi
cargo build --locked --workspace --all-targets
cd tests/judges/node
npm ci --no-progress
npm test
