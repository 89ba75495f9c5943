#!/usr/bin/env bash
# kill -9 of payments, or of its PostgreSQL, at every crash point of payments and at random moments, while payments flow: the process with
# a store of its own (PostgreSQL with everything synced, or SQLite) and the sandbox as the channels. A quarter each is paid over WeChat Pay
# alone, over WeChat Pay for two departments at once, and over Alipay in either form of its calls. Prints the seed; SEED draws the same again.
#
#   bench/drill-payments.sh                    PAYMENTS=20000 KILLS=200 ROUNDS=2 CLIENTS=64 TARGET=payments STORE=postgres
#   STORE=sqlite bench/drill-payments.sh       the same on a file
#   TARGET=postgres bench/drill-payments.sh    the same with the database killed: payments has to live through it
#
# Progress goes to standard error, the figures as JSON to standard output; it ends with 1 when anything is lost, doubled, open or unknown.
set -euo pipefail
cd "$(dirname "$0")"
exec kill/run.sh ${SEED:+--seed "$SEED"} payments --target "${TARGET:-payments}" --store "${STORE:-postgres}" --payments "${PAYMENTS:-20000}" \
    --kills "${KILLS:-200}" --rounds "${ROUNDS:-2}" --clients "${CLIENTS:-64}"
