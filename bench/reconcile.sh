#!/usr/bin/env bash
# A day of many payments, reconciled three ways: time and peak memory.
#
#   cargo build --release -p lastmile -p lastmile-tests --bin lastmile --bin reconcile-bench
#   bench/reconcile.sh                 PAYMENTS=10000000 BREAKS=100; some 15 GiB of scratch space in TMPDIR
#
# Each payment stands in the bill of WeChat Pay, twice in the ledger's export (paid, and posted to its department) and in the department's
# settlement file: 40 million rows for 10 million payments. BREAKS of them miss in the bill: so many must be found, and nothing else.
# Peak memory is the process's high-water mark as the kernel tells it; sorted runs lie on disk.
set -euo pipefail
cd "$(dirname "$0")/.."
PAYMENTS=${PAYMENTS:-10000000} BREAKS=${BREAKS:-100}
binaries=${CARGO_TARGET_DIR:-target}/${PROFILE:-release}
for binary in lastmile reconcile-bench; do
    [ -x "$binaries/$binary" ] || { echo "no $binaries/$binary: see the head of $0" >&2; exit 64; }
done
[ -x /usr/bin/time ] || { echo "no GNU time: apt-get install time" >&2; exit 69; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$binaries/reconcile-bench" --to "$work" --payments "$PAYMENTS" --breaks "$BREAKS"
du -ch "$work"/*.csv | tail -n 1
status=0
/usr/bin/time -o "$work/time" -f '%e s, %U s of it computing, %M KiB at most' "$binaries/lastmile" reconcile --json \
    --scratch "$work" "$work/bill.csv" "$work/ledger.csv" "$work/department.csv" >"$work/breaks" 2>"$work/sums" || status=$?
grep -v ' movements read$' "$work/sums"
tail -n 1 "$work/time"
found=$(grep -c '"kind":"short"' "$work/breaks" || true)
if [ "$found" != "$BREAKS" ] || [ "$(wc -l <"$work/breaks")" != "$BREAKS" ] || [ "$status" != $((BREAKS > 0)) ]; then
    echo "wrong: $found of $BREAKS breaks found, $(wc -l <"$work/breaks") told, exit code $status" >&2
    exit 1
fi
