#!/usr/bin/env bash
# Brings docker-compose.yml up on a real Docker engine and drives it with the demonstration. Leaves nothing running.
#
# Installs docker.io and docker-compose where they are missing, starts an engine of its own where none answers, and makes stand-ins for
# the public base images where no registry does. PROFILE=dev (the default here) builds quicker, PROFILE=release as for production.
set -euo pipefail
cd "$(dirname "$0")/.."
export PROFILE=${PROFILE:-dev} COMPOSE_PROJECT_NAME=lastmile-test
say() { printf '== %s\n' "$*"; }
fail() {
    printf 'compose-test: %s\n' "$*" >&2
    exit 1
}
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

engine=''
work=$(mktemp -d)
finish() {
    code=$?
    if [ $code != 0 ]; then
        docker-compose ps || true
        docker-compose logs --tail 40 || true
    fi
    docker-compose --profile demo down --volumes --timeout 10 >/dev/null 2>&1 || true
    if [ -n "$engine" ]; then
        as_root kill "$engine" 2>/dev/null || true
        for _ in $(seq 100); do as_root kill -0 "$engine" 2>/dev/null && sleep 0.1; done
    fi
    as_root rm -rf "$work"
    exit $code
}
trap finish EXIT

if ! command -v dockerd >/dev/null || ! command -v docker-compose >/dev/null; then
    say "installing docker.io and docker-compose"
    as_root apt-get update -q >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends docker.io docker-compose >/dev/null
fi
if ! docker info >/dev/null 2>&1; then
    say "starting an engine"
    as_root dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" >"$work/dockerd.log" 2>&1 &
    for _ in $(seq 300); do docker info >/dev/null 2>&1 && break || sleep 0.1; done
    docker info >/dev/null 2>&1 || fail "no engine: $(tail -5 "$work/dockerd.log")"
    engine=$(cat "$work/pid")
fi
for image in debian:bookworm-slim rust:1.95-bookworm postgres:15-bookworm redis:7-bookworm otel/opentelemetry-collector:0.140.0; do
    docker image inspect "$image" >/dev/null 2>&1 && continue
    if ! timeout 120 docker pull -q "$image" >/dev/null 2>&1; then
        say "no registry answers: making stand-ins"
        deploy/standins/make.sh
        break
    fi
done

# SKIP_BUILD=1 takes the image that is there: to look at this script itself.
say "building the image ($PROFILE)"
[ -n "${SKIP_BUILD:-}" ] || docker-compose build -q keys
say "starting"
docker-compose up -d >/dev/null
deadline=$(($(date +%s) + 180))
for service in identity catalog payments cases adapter gateway sandbox collector-health; do
    until [ "$(docker inspect -f '{{.State.Health.Status}}' "$(docker-compose ps -q $service)" 2>/dev/null)" = healthy ]; do
        [ "$(date +%s)" -lt $deadline ] || fail "$service is not healthy in 180 s"
        sleep 1
    done
done

say "no container of lastmile has more than it needs"
for service in identity catalog payments cases adapter gateway sandbox; do
    container=$(docker-compose ps -q $service)
    [ "$(docker inspect -f '{{.HostConfig.ReadonlyRootfs}} {{.Config.User}}' "$container")" = "true 10001:10001" ] || fail "$service: not read-only, or root"
    docker exec "$container" sh -c 'touch /usr/share/lastmile/x 2>/dev/null' && fail "$service writes to its image"
    [ "$(docker exec "$container" sh -c 'ls /run/lastmile/tls/*/key.pem' | wc -l)" = 1 ] || fail "$service sees another role's key"
done

for service in postgres redis collector; do
    docker top "$(docker-compose ps -q $service)" -eo uid | grep -qx ' *0' && fail "$service runs as root"
done

say "the doctor finds nothing bad"
for service in identity catalog payments cases adapter gateway sandbox; do
    docker-compose exec -T $service lastmile doctor --config /etc/lastmile/split.toml --config /etc/lastmile/split-sandbox.toml \
        >"$work/doctor.log" || fail "$service: $(grep -A1 BAD "$work/doctor.log")"
done

say "the slice, in both cities"
docker-compose run --rm demo
for fault in refused-after-payment department-silent callback-lost; do
    say "the slice with $fault"
    docker-compose run --rm demo --fault "$fault" --city changsha
done

say "a citizen pays while cases is killed"
docker-compose run --rm demo --fault payment-lost --city taiyuan --patience 180 >"$work/demo.log" 2>&1 &
demo=$!
for _ in $(seq 600); do grep -q NO_ANSWER "$work/demo.log" && break || sleep 0.1; done
grep -q NO_ANSWER "$work/demo.log" || fail "the payment was not lost as staged: $(cat "$work/demo.log")"
docker-compose kill -s SIGKILL cases adapter >/dev/null
docker-compose start cases adapter >/dev/null
wait $demo || fail "the case was lost: $(cat "$work/demo.log")"
tail -3 "$work/demo.log"

say "spans reached the collector"
docker-compose logs --no-color collector >"$work/collector.log" 2>&1
grep -qE 'Received traces|"spans": [1-9]' "$work/collector.log" || fail "the collector got nothing"
say "every role drains"
docker-compose stop --timeout 30 >/dev/null
for service in identity catalog payments cases adapter gateway sandbox; do
    ended=$(docker inspect -f '{{.State.ExitCode}}' "$(docker-compose ps -q $service)")
    [ "$ended" = 0 ] || fail "$service ended with $ended"
done
say "done"
