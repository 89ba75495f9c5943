#!/usr/bin/env bash
# Holds every dependency against deny.toml: licences, sources, crates that may not come in; and against the RustSec advisories, where their
# database can be had. Installs cargo-deny into target/tools where it is missing, which takes some three minutes, once.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2 tools=$PWD/target/tools
deny=$tools/bin/cargo-deny
if ! "$deny" --version 2>/dev/null | grep -qF " $version"; then
    # It runs for a second: what a slow build would gain is not missed.
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_INCREMENTAL=0 \
        cargo install --locked --quiet --version $version --root "$tools" --target-dir "$tools/build" cargo-deny
    rm -rf "$tools/build"
fi
"$deny" --locked check bans licenses sources
if "$deny" --locked fetch db >/dev/null 2>&1; then
    "$deny" --locked check --disable-fetch advisories
else
    echo "deny: the RustSec advisory database is out of reach: advisories are NOT checked" >&2
fi
