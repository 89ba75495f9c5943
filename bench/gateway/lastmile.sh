#!/usr/bin/env bash
# lastmile's gateway with its full policy beside nginx grpc_pass and Envoy with JWT and rate limit, in one interleaved run.
#
#   bench/gateway/lastmile.sh          ROUNDS=3 DUR=6 SECS=6 RPS=4000 TOKENS=10000; a quiet machine with 2 cores; some 4 minutes
#
# Saturated (h2load -c 4 -m 16, one token): CPU of the proxy per request. Paced (Poisson arrivals, 16 connections): p50, p99 and CPU, with
# one token and with TOKENS of them in turn. nginx gets the very headers and body that lastmile gets. Envoy gets a token of its own (ES256,
# a tenth of the size) and its own path, which favours it. All three have the same upstream, which only answers (576 bytes).
# Exits 1 when a bound is passed (0.7 x nginx, 0.4 x Envoy) or an answer was bad.
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
"$here/peers.sh" start leanup nginx envoy
: >"$work/out"
taskset -c 0 "$binary" --listen 127.0.0.1:9140 --upstream 127.0.0.1:9002 --tokens "$TOKENS" --out "$work" >"$work/out" 2>"$work/err" &
gateway=$!
echo "exchanging $TOKENS tokens" >&2
until grep -q '^ready' "$work/out"; do
    kill -0 $gateway 2>/dev/null || { cat "$work/err" >&2; exit 1; }
    sleep 0.1
done
nginx_pid=$(cat "$R/nginx.pid") envoy_pid=$(cat "$R/envoy.pid")
path=/lastmile.department.v1.DepartmentService/Query
ours() { BODY=$work/query.bin GRPC_PATH=$path JWT=$work/one.jwt REGION=- "$@"; }

for _ in $(seq "$ROUNDS"); do
    export C=4 M=16 DUR
    ours env ROUNDS=1 OUT="$work/a.tsv" "$here/gw_bench.sh" nginx=127.0.0.1:9110@"$nginx_pid" lastmile=127.0.0.1:9140@$gateway >/dev/null
    ROUNDS=1 OUT="$work/b.tsv" "$here/gw_bench.sh" envoy=127.0.0.1:9131@"$envoy_pid" >/dev/null
    cat "$work/a.tsv" "$work/b.tsv" >>"$work/saturated.tsv"
done
for _ in $(seq "$ROUNDS"); do
    export CONNS=16 RPS SECS
    for how in one many; do
        extra="--path=$path"
        [ $how = one ] || extra="$extra --jwts=$work/tokens.txt"
        [ $how = many ] || head -1 "$work/tokens.txt" >"$work/first.txt"
        [ $how = many ] || extra="$extra --jwts=$work/first.txt"
        EXTRA=$extra ours env ROUNDS=1 OUT="$work/p.tsv" "$here/pace_bench.sh" \
            nginx-$how=127.0.0.1:9110@"$nginx_pid" lastmile-$how=127.0.0.1:9140@$gateway >/dev/null
        cat "$work/p.tsv" >>"$work/paced.tsv"
    done
    ROUNDS=1 OUT="$work/p.tsv" "$here/pace_bench.sh" envoy-one=127.0.0.1:9131@"$envoy_pid" >/dev/null
    cat "$work/p.tsv" >>"$work/paced.tsv"
done
"$R/venv/bin/python" - "$work" <<'P'
import statistics, sys
rows = lambda name: [line.rstrip("\n").split("\t") for line in open(f"{sys.argv[1]}/{name}.tsv")]
def table(title, rows, columns):
    print(title)
    names = list(dict.fromkeys(row[0] for row in rows))
    for name in names:
        of = [row for row in rows if row[0] == name]
        print(f"  {name:<14}" + "".join(f"{label} {statistics.median(value(row) for row in of):>9.1f}  " for label, value in columns))
    return {name: statistics.median(columns[0][1](row) for row in rows if row[0] == name) for name in names}
saturated, paced = rows("saturated"), rows("paced")
bad = [row for row in saturated if row[10] != "ok"] + [row for row in paced if int(row[4])]
cpu = table("saturated, one token", saturated, [("CPU us/request", lambda r: float(r[3])), ("requests/s", lambda r: float(r[2]))])
print(f"  lastmile is {cpu['lastmile'] / cpu['nginx']:.2f} x nginx and {cpu['lastmile'] / cpu['envoy']:.2f} x Envoy (whose token is a tenth of the size)")
over = ["saturated"] if cpu["lastmile"] > 0.7 * cpu["nginx"] or cpu["lastmile"] > 0.4 * cpu["envoy"] else []
paced_cpu = lambda r: float(r[10]) / 1000 / max(1, float(r[2]))
cpu = table("paced", paced, [("CPU us/request", paced_cpu), ("p50 us", lambda r: float(r[5])), ("p99 us", lambda r: float(r[7]))])
for how in ("one", "many"):
    print(f"  {how}: lastmile is {cpu['lastmile-' + how] / cpu['nginx-' + how]:.2f} x nginx and {cpu['lastmile-' + how] / cpu['envoy-one']:.2f} x Envoy")
over += [how for how in ("one", "many") if cpu["lastmile-" + how] > 0.7 * cpu["nginx-" + how] or cpu["lastmile-" + how] > 0.4 * cpu["envoy-one"]]
if bad:
    sys.exit(f"BAD answers in {len(bad)} runs: {bad}")
if over:
    sys.exit(f"past the bound of 0.7 x nginx and 0.4 x Envoy: {over}")
P
