#!/usr/bin/env bash
# What `lastmile serve` with everything costs and how soon it answers: every role, embedded storage, the sandbox, an empty data directory.
#
#   bench/serve.sh [BINARY]      target/debug/lastmile when none is named, which is what `make run` serves
#
# Prints, one a line: milliseconds from the start of the process to the first answered call (the key set), to the first answered query of
# a citizen's records (token exchange included), and to the first case that is done; resident memory after both cities were played, and
# its peak. Exits 1 when a figure is past its bound: 2,000 ms to the first call, 250 MiB.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:-target/debug/lastmile}
[ -x "$binary" ] || { echo "no $binary: cargo build -p lastmile" >&2; exit 64; }
work=$(mktemp -d)
server=''
finish() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT
now_ms() { echo $(($(date +%s%N) / 1000000)); }

ports=(--set listen.public=127.0.0.1:17443 --set listen.callbacks=127.0.0.1:17444 --set listen.operations=127.0.0.1:17445
    --set sandbox.systems.control.listen=127.0.0.1:17500 --set sandbox.systems.wechatpay.listen=127.0.0.1:17501
    --set sandbox.systems.police_430100.listen=127.0.0.1:17511 --set sandbox.systems.police_140100.listen=127.0.0.1:17512)
begun=$(now_ms)
"$binary" serve --sandbox --data "$work/var" --log warn "${ports[@]}" >"$work/out" 2>"$work/err" &
server=$!
until curl -sf -o /dev/null http://127.0.0.1:17443/.well-known/jwks.json; do
    kill -0 $server 2>/dev/null || { cat "$work/err" >&2; exit 1; }
    sleep 0.005
done
first_call=$(($(now_ms) - begun))
# The demonstration's lines carry the time at which each was told.
"$binary" demo --city changsha --data "$work/var" "${ports[@]}" | while IFS= read -r line; do
    printf '%s %s\n' "$(($(now_ms) - begun))" "$line"
done >"$work/demo"
first_query=$(awk '/ records /{print $1; exit}' "$work/demo")
first_case=$(awk '/ proof /{print $1; exit}' "$work/demo")
"$binary" demo --city taiyuan --data "$work/var" "${ports[@]}" >/dev/null
rss=$(awk '/^VmRSS/{print int($2/1024)}' /proc/$server/status)
peak=$(awk '/^VmHWM/{print int($2/1024)}' /proc/$server/status)
printf '%-28s %6s ms\n' "first answered call" "$first_call" "first answered query" "$first_query" "first case done" "$first_case"
printf '%-28s %6s MiB\n' "resident memory" "$rss" "its peak" "$peak"
[ "$first_call" -lt 2000 ] && [ "$peak" -lt 250 ]
