#!/usr/bin/env bash
# Orders and captures of payments per second, durable, beside pgbench's TPC-B-like on the same PostgreSQL in one interleaved run.
#
#   cargo build --release -p lastmile-tests --bin ledger-bench
#   bench/ledger.sh                    ROUNDS=3 SECS=5 CLIENTS=128 ORDERS=40000; a quiet machine with 2 cores; some 3 minutes
#
# PostgreSQL is made here, of Debian's packages, with everything synced (fsync, synchronous_commit and full_page_writes on) and 1 GiB of
# shared buffers; SQLite is as lastmile opens it (WAL, synchronous=FULL). The same number of clients everywhere. What is counted for
# lastmile: an order from the call to its pay sheet, two changes of it; a capture from the verified callback to its acknowledgement, with
# the order, the transfer, two balances, the work list and the event in one transaction. At the end of each round all books are checked.
set -euo pipefail
cd "$(dirname "$0")/.."
ROUNDS=${ROUNDS:-3} SECS=${SECS:-5} CLIENTS=${CLIENTS:-128} ORDERS=${ORDERS:-40000}
binary=${CARGO_TARGET_DIR:-target}/release/ledger-bench
[ -x "$binary" ] || { echo "no $binary: cargo build --release -p lastmile-tests --bin ledger-bench" >&2; exit 64; }
bin=$(dirname "$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null | sort -V | tail -n 1)")
[ "$bin" != . ] || { echo "no PostgreSQL: apt-get install postgresql" >&2; exit 69; }
work=$(mktemp -d)
port=$((20000 + RANDOM % 12000))
as_postgres() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
finish() {
    as_postgres "$bin/pg_ctl" -D "$work/pg" -m immediate -s stop >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT
chmod 755 "$work"
mkdir "$work/pg"
if [ "$(id -u)" = 0 ]; then chown postgres "$work/pg"; fi
as_postgres "$bin/initdb" -D "$work/pg" -U bench -A trust -E UTF8 --no-locale >/dev/null
as_postgres "$bin/pg_ctl" -D "$work/pg" -l "$work/pg/log" -s -w -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories='' \
    -c shared_buffers=1GB -c max_wal_size=8GB -c max_connections=$((CLIENTS + 50)) -c fsync=on -c synchronous_commit=on -c full_page_writes=on" start
export PGHOST=127.0.0.1 PGPORT=$port PGUSER=bench
createdb bench
"$bin/pgbench" -i -q -s 40 bench >/dev/null 2>&1
for round in $(seq "$ROUNDS"); do
    tps=$("$bin/pgbench" -n -M prepared -c "$CLIENTS" -j 2 -T "$SECS" bench | awk '/^tps/ { print $3 }')
    printf 'pgbench\t%s\n' "$tps" >>"$work/rows"
    for store in "postgres://bench@127.0.0.1:$port/bench" "sqlite:$work/ledger-$round.db"; do
        "$binary" --store "$store" --clients "$CLIENTS" --orders "$ORDERS" | sed "s/^/${store%%:*}-/" >>"$work/rows"
        psql -q bench -c 'DROP SCHEMA IF EXISTS ledger_bench CASCADE' 2>/dev/null
    done
    # What one row per commit costs the same file system, at one client: SQLite folds nothing then.
    "$binary" --store "sqlite:$work/alone-$round.db" --clients 1 --orders $((ORDERS / 20)) | sed 's/^/sqlite-alone-/' >>"$work/rows"
done
awk -F'\t' '
    { rows[$1]++; rate[$1, rows[$1]] = $2; p50[$1, rows[$1]] = $3; p99[$1, rows[$1]] = $4 }
    function median(name, of,   i, j, n, held, list) {
        n = rows[name]
        for (i = 1; i <= n; i++) list[i] = of[name, i]
        for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (list[j] < list[i]) { held = list[i]; list[i] = list[j]; list[j] = held }
        return list[int((n + 1) / 2)]
    }
    END {
        base = median("pgbench", rate)
        printf "%-28s %10.0f/s\n", "pgbench TPC-B-like", base
        split("postgres-orders postgres-captures sqlite-orders sqlite-captures sqlite-alone-captures", names, " ")
        for (i = 1; i <= 5; i++)
            printf "%-28s %10.0f/s  p50 %7.2f ms  p99 %7.2f ms  %5.2f x pgbench\n", names[i], median(names[i], rate), median(names[i], p50), median(names[i], p99), median(names[i], rate) / base
        printf "sqlite: %.2f x one client alone\n", median("sqlite-captures", rate) / median("sqlite-alone-captures", rate)
    }' "$work/rows"
