#!/usr/bin/env bash
# lastmile's gateway with its full policy beside nginx grpc_pass and Envoy with JWT and rate limit, in one interleaved run.
#
#   bench/gateway/lastmile.sh          ROUNDS=3 DUR=6 SECS=6 RPS=4000 TOKENS=10000; a quiet machine with 2 cores; some 6 minutes
#
# Saturated (8 connections x 16 calls): CPU of the proxy per request, with one token (h2load) and with TOKENS of them in turn (paceload).
# Paced (Poisson arrivals, 16 connections): p50, p99 and CPU, with one token and with TOKENS. nginx gets the very headers and body that
# lastmile gets. Envoy, which can verify none of lastmile's tokens, gets as many of its own issuer, each as long, with a cache that holds
# them all, the same body and its own path. All three have the same upstream, which only answers (576 bytes). Before anything is measured
# every token is met once.
# Exits 1 when a bound is passed (saturated: 0.7 x nginx and 0.4 x Envoy) or an answer was bad.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
export BENCH_HOME=${BENCH_HOME:-/tmp/lastmile-bench}
R=$BENCH_HOME
ROUNDS=${ROUNDS:-3} DUR=${DUR:-6} SECS=${SECS:-6} RPS=${RPS:-4000} TOKENS=${TOKENS:-10000}
binary=${CARGO_TARGET_DIR:-target}/release/gateway-bench
[ -x "$binary" ] || { echo "no $binary: cargo build --release -p lastmile-tests --bins" >&2; exit 64; }
work=$(mktemp -d)
gateway=''
finish() {
    [ -z "$gateway" ] || kill -INT "$gateway" 2>/dev/null || true
    "$here/peers.sh" stop leanup nginx envoy >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT
"$here/setup.sh" >/dev/null
"$here/peers.sh" start leanup
: >"$work/out"
taskset -c 0 "$binary" --listen 127.0.0.1:9140 --upstream 127.0.0.1:9002 --tokens "$TOKENS" --out "$work" >"$work/out" 2>"$work/err" &
gateway=$!
echo "exchanging $TOKENS tokens" >&2
until grep -q '^ready' "$work/out"; do
    kill -0 $gateway 2>/dev/null || { cat "$work/err" >&2; exit 1; }
    sleep 0.1
done
# Envoy's tokens, as long as lastmile's. Its key is new: it starts after.
"$R/venv/bin/python" "$here/mkjwt.py" "$R" 30 "$TOKENS" "$(awk '{ n += length($0) } END { print int(n / NR) }' "$work/tokens.txt")"
"$here/peers.sh" start nginx envoy
for port in 9110 9131; do
    for _ in $(seq 100); do (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.1; done
done
head -1 "$work/tokens.txt" >"$work/first.txt"
head -1 "$R/es256.jwts" >"$work/envoy-first.txt"
nginx=nginx=127.0.0.1:9110@$(cat "$R/nginx.pid") envoy=envoy=127.0.0.1:9131@$(cat "$R/envoy.pid") ours=lastmile=127.0.0.1:9140@$gateway
path=/lastmile.department.v1.DepartmentService/Query
export BODY=$work/query.bin CONNS=16 RPS SECS
ours() { GRPC_PATH=$path JWT=$work/one.jwt REGION=- "$@"; }
# One round of paceload: the name of the table, what to add, nginx and lastmile's tokens, Envoy's.
paceload() {
    EXTRA="--path=$path --jwts=$3 $2" ours env ROUNDS=1 OUT="$work/p.tsv" "$here/pace_bench.sh" "$nginx" "$ours" >/dev/null
    EXTRA="--jwts=$4 $2" ROUNDS=1 OUT="$work/q.tsv" "$here/pace_bench.sh" "$envoy" >/dev/null
    cat "$work/p.tsv" "$work/q.tsv" >>"$work/$1.tsv"
}

# Every token is met once, at a pace that verification keeps up with: measured is what follows. The rows are thrown away.
RPS=2500 SECS=$((TOKENS / 2500 + 2)) paceload met "" "$work/tokens.txt" "$R/es256.jwts"
for _ in $(seq "$ROUNDS"); do
    RPS= C=8 M=16 ours env ROUNDS=1 DUR="$DUR" OUT="$work/a.tsv" "$here/gw_bench.sh" "$nginx" "$ours" >/dev/null
    RPS= C=8 M=16 ROUNDS=1 DUR="$DUR" OUT="$work/b.tsv" "$here/gw_bench.sh" "$envoy" >/dev/null
    cat "$work/a.tsv" "$work/b.tsv" >>"$work/saturated.tsv"
    CONNS=8 paceload saturated-many --closed=16 "$work/tokens.txt" "$R/es256.jwts"
    paceload paced "" "$work/first.txt" "$work/envoy-first.txt"
    paceload paced-many "" "$work/tokens.txt" "$R/es256.jwts"
done
"$R/venv/bin/python" - "$work" "$TOKENS" <<'P'
import statistics, sys
work, tokens = sys.argv[1:]
over, bad = [], []
def table(title, name, columns, failed, bound):
    rows = [line.rstrip("\n").split("\t") for line in open(f"{work}/{name}.tsv")]
    bad.extend(row for row in rows if failed(row))
    print(title)
    cpu = {}
    for target in ("nginx", "lastmile", "envoy"):
        of = [row for row in rows if row[0] == target]
        median = lambda value: statistics.median(value(row) for row in of)
        spent = [columns[0][1](row) for row in of]
        cpu[target] = statistics.median(spent)
        print(f"  {target:<10}" + "".join(f"{label} {median(value):>8.1f}  " for label, value in columns) + f"[{min(spent):.1f}..{max(spent):.1f}]")
    to_nginx, to_envoy = cpu["lastmile"] / cpu["nginx"], cpu["lastmile"] / cpu["envoy"]
    print(f"  lastmile is {to_nginx:.2f} x nginx and {to_envoy:.2f} x Envoy")
    if bound and (to_nginx > 0.7 or to_envoy > 0.4):
        over.append(title)
saturated = [("CPU us/request", lambda r: float(r[3])), ("requests/s", lambda r: float(r[2]))]
cpu = ("CPU us/request", lambda r: float(r[10]) / 1000 / max(1, float(r[2])))
paced = [cpu, ("p50 us", lambda r: float(r[5])), ("p99 us", lambda r: float(r[7]))]
short = lambda row: int(row[4])
table("saturated, one token", "saturated", saturated, lambda row: row[10] != "ok", True)
table(f"saturated, {tokens} tokens", "saturated-many", [cpu, ("calls", lambda r: float(r[2]))], short, True)
table("paced, one token", "paced", paced, short, False)
table(f"paced, {tokens} tokens", "paced-many", paced, short, False)
if bad:
    sys.exit(f"BAD answers in {len(bad)} runs: {bad}")
if over:
    sys.exit(f"past the bound of 0.7 x nginx and 0.4 x Envoy: {over}")
P
