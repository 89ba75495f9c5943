#!/usr/bin/env bash
# Makes stand-ins for the public images that the Dockerfile and docker-compose.yml name, from Debian packages, on a host where no image
# registry answers. Needs root, a running Docker engine, debootstrap, and the Rust toolchain of this host. Images that exist are kept.
set -euo pipefail
cd "$(dirname "$0")"
have() { docker image inspect "$1" >/dev/null 2>&1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

base=debian:bookworm-slim
if ! have $base; then
    echo "making $base with debootstrap"
    debootstrap --variant=minbase --include=ca-certificates bookworm "$work/root" >"$work/debootstrap.log" 2>&1 || {
        tail -20 "$work/debootstrap.log"
        exit 1
    }
    rm -rf "$work"/root/usr/share/{doc,man,locale} "$work"/root/var/cache/apt/archives/*.deb
    # What this host trusts, the image trusts: a host behind a proxy of its own could build nothing otherwise.
    cp -L /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/ca-certificates.crt"
    cp -L /etc/apt/sources.list "$work/root/etc/apt/sources.list" 2>/dev/null || true
    tar -C "$work/root" -c . | docker import -c 'CMD ["/bin/bash"]' - $base >/dev/null
fi

rust=rust:1.95-bookworm
if ! have $rust; then
    echo "making $rust from the toolchain of this host"
    mkdir "$work/rust"
    toolchain=$(rustc --print sysroot)
    tar -C "$toolchain" --exclude=share/doc --exclude=share/man -cf "$work/rust/toolchain.tar" .
    mkdir -p "$work/rust/cargo" && cp "${CARGO_HOME:-$HOME/.cargo}/config.toml" "$work/rust/cargo/" 2>/dev/null || true
    docker build -q -t $rust -f rust.Dockerfile "$work/rust" >/dev/null
fi

for image in postgres:15-bookworm redis:7-bookworm otel/opentelemetry-collector:0.140.0; do
    have "$image" && continue
    echo "making $image from packages"
    name=${image%%:*}
    docker build -q -t "$image" -f "${name##*/}.Dockerfile" . >/dev/null
done
docker image ls --format '{{.Repository}}:{{.Tag}}  {{.Size}}' | grep -E '^(debian|rust|postgres|redis|otel)'
