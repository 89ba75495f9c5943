#!/usr/bin/env bash
# Runs the third-party clients that are too large for `make test`, against the sandbox: Alipay's own for Python (439 MB), in an
# environment of its own, and those of tests/judges/node. Needs nothing but network for what is not installed yet.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$(date +%s)
step() { printf '\n== %s (%ss)\n' "$1" "$(($(date +%s) - started))"; }
# node:test is there from version 18 on.
node_is_there() { command -v npm >/dev/null && node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 18 ? 0 : 1)' 2>/dev/null; }

step "third-party clients"
node_is_there || {
    echo "installing nodejs and npm"
    as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
    as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null
    node_is_there || { echo "Node.js 18 or newer with npm is needed, and this system's packages do not have it" >&2; exit 1; }
}
tests/venv.sh tests/judges/official/requirements.txt target/venv-official
(cd tests/judges/node && npm ci --no-progress)
step "build"
cargo build --locked --workspace --example serve
step "Alipay's client for Python"
PYTHONPATH=tests/judges target/venv-official/bin/python -m pytest -q --noconftest tests/judges/official/judge_*.py
step "clients from npm"
(cd tests/judges/node && npm test)
step "done"
