# Thin names over cargo and scripts. `make run` and `make test` need Rust and, for test, apt.
.PHONY: help run test compose-test drill check gen clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

run: ## builds and serves every role on embedded storage with the sandbox
	cargo build --locked -p lastmile
	target/debug/lastmile serve --sandbox

test: ## everything that must hold; starts what it needs and leaves nothing running
	tests/run.sh

compose-test: ## the split topology in containers on a real Docker engine, driven by the demonstration
	deploy/compose-test.sh

drill: ## kills real processes: 20 times at each crash point, 50 times under 10,000 cases, on both topologies
	bench/kill/run.sh points --rounds 20
	bench/kill/run.sh load --cases 10000 --clients 64 --kills 50
	bench/kill/run.sh load --cases 10000 --clients 64 --kills 50 --split

check: ## format, lints, proto rules
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	tests/venv.sh
	target/venv/bin/buf lint

gen: ## writes crates/contracts/src/gen from proto/
	cargo run --locked -q -p contracts-generator

clean: ## removes what was built and the data of `make run`
	cargo clean
	rm -rf var
