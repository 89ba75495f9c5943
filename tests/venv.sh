#!/usr/bin/env bash
# Makes an environment with pinned third-party clients that judge lastmile: `venv.sh [REQUIREMENTS VENV]`, by default those of `make test`
# in target/venv. Does nothing when it is current.
set -euo pipefail
cd "$(dirname "$0")/.."
requirements=${1:-tests/judges/requirements.txt}
venv=${2:-target/venv}
stamp=$venv/requirements.txt
cmp -s "$requirements" "$stamp" && exit 0
python3 -c 'import ensurepip, venv' 2>/dev/null || {
    echo "installing python3-venv"
    as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
    as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv >/dev/null
}
mkdir -p target
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
cp "$requirements" "$stamp"
