#!/usr/bin/env bash
# Orders and captures of payments per second, durable, beside pgbench's TPC-B-like on the same PostgreSQL in one interleaved run.
#
#   cargo build --release -p lastmile-tests --bin ledger-bench
#   bench/ledger.sh                    ROUNDS=3 SECS=5 CLIENTS="64 128 256 512" ORDERS=40000; a quiet machine with 2 cores; some 7 minutes
#
# PostgreSQL is made here, of Debian's packages, with everything synced (fsync, synchronous_commit and full_page_writes on) and 1 GiB of
# shared buffers; SQLite is as lastmile opens it (WAL, synchronous=FULL). For each number of clients, the same number everywhere. What is
# counted for lastmile: an order from the call to its pay sheet, two changes of it; a capture from the verified callback to its
# acknowledgement, with the order, the transfer, two balances, the work list and the event in one transaction. At the end of each run all
# books are checked.
set -euo pipefail
cd "$(dirname "$0")/.."
ROUNDS=${ROUNDS:-3} SECS=${SECS:-5} CLIENTS=${CLIENTS:-64 128 256 512} ORDERS=${ORDERS:-40000}
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
    -c shared_buffers=1GB -c max_wal_size=8GB -c max_connections=1000 -c fsync=on -c synchronous_commit=on -c full_page_writes=on" start
export PGHOST=127.0.0.1 PGPORT=$port PGUSER=bench
createdb bench
"$bin/pgbench" -i -q -s 40 bench >/dev/null 2>&1
run() { # PREFIX STORE CLIENTS ORDERS
    "$binary" --store "$2" --clients "$3" --orders "$4" | sed "s/^/$1-/" >>"$work/rows"
}
for round in $(seq "$ROUNDS"); do
    for clients in $CLIENTS; do
        tps=$("$bin/pgbench" -n -M prepared -c "$clients" -j 2 -T "$SECS" bench 2>/dev/null | awk '/^tps/ { print $3 }')
        printf '%s-pgbench\t%s\n' "$clients" "$tps" >>"$work/rows"
        run "$clients-postgres" "postgres://bench@127.0.0.1:$port/bench" "$clients" "$ORDERS"
        psql -q bench -c 'DROP SCHEMA ledger_bench CASCADE' 2>/dev/null
        run "$clients-sqlite" "sqlite:$work/ledger-$round-$clients.db" "$clients" "$ORDERS"
        rm -f "$work/ledger-$round-$clients.db"*
    done
    # What one row per commit costs the same file system, at one client: SQLite folds nothing then.
    run 1-sqlite "sqlite:$work/alone-$round.db" 1 $((ORDERS / 20))
    echo "round $round of $ROUNDS done" >&2
done
awk -F'\t' -v counts="$CLIENTS" '
    { rows[$1]++; rate[$1, rows[$1]] = $2; p50[$1, rows[$1]] = $3; p99[$1, rows[$1]] = $4 }
    function median(name, of,   i, j, n, held, list) {
        n = rows[name]
        for (i = 1; i <= n; i++) list[i] = of[name, i]
        for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (list[j] < list[i]) { held = list[i]; list[i] = list[j]; list[j] = held }
        return list[int((n + 1) / 2)]
    }
    function row(name, what, base, of) {
        printf "%4s %-22s %8.0f/s  p50 %7.2f ms  p99 %7.2f ms  %6.2f x %s\n", clients, what, median(name, rate), median(name, p50), median(name, p99), median(name, rate) / median(base, rate), of
    }
    END {
        n = split(counts, list, " ")
        for (k = 1; k <= n; k++) {
            clients = list[k]
            printf "%4s %-22s %8.0f/s\n", clients, "pgbench TPC-B-like", median(clients "-pgbench", rate)
            row(clients "-postgres-orders", "PostgreSQL, orders", clients "-pgbench", "pgbench")
            row(clients "-postgres-captures", "PostgreSQL, captures", clients "-pgbench", "pgbench")
            row(clients "-sqlite-orders", "SQLite, orders", "1-sqlite-orders", "one client")
            row(clients "-sqlite-captures", "SQLite, captures", "1-sqlite-captures", "one client")
        }
        clients = 1
        row("1-sqlite-captures", "SQLite, captures", "1-sqlite-captures", "one client")
    }' "$work/rows"
