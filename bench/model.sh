#!/usr/bin/env bash
# A million operations of payments (create, callback, refresh, post, refund, close, pay, decide, time), several at once and with a channel
# that does not always answer, against a model that does one thing after the other. Prints the seed; MODEL_SEED replays a run.
#
#   bench/model.sh                     MODEL_OPS=1000000 MODEL_SEED=random; some minutes
set -euo pipefail
cd "$(dirname "$0")/.."
export MODEL_OPS=${MODEL_OPS:-1000000} MODEL_SEED=${MODEL_SEED:-$((RANDOM * 32768 + RANDOM))}
echo "seed $MODEL_SEED"
cargo test --locked --workspace --lib -p payments -- till::tests::model --nocapture
