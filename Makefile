# Thin names over cargo and scripts. `make run` and `make test` need Rust and, for test, apt.
.PHONY: help run up down test judges compose-test drill bench check doc deny gen clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

run: ## builds and serves every role on embedded storage with the sandbox
	cargo build --locked -p lastmile
	target/debug/lastmile serve --sandbox

up: ## the split topology in containers (docker-compose), with the sandbox as the world outside
	docker-compose up -d --build
	@echo 'Now try: docker-compose run --rm demo'

down: ## stops what `make up` started; its volumes stay
	docker-compose --profile demo down

test: ## everything that must hold; starts what it needs and leaves nothing running
	tests/run.sh

judges: ## third-party clients whose installs are too large for `make test`; installs what it needs
	tests/judges.sh

compose-test: ## the split topology in containers on a real Docker engine, driven by the demonstration
	deploy/compose-test.sh

drill: ## kills real processes: 20 times at each crash point, 50 times under 10,000 cases, 200 times under 20,000 payments; the database too
	bench/kill/run.sh points --rounds 20
	bench/kill/run.sh load --cases 10000 --clients 64 --kills 50
	bench/kill/run.sh load --cases 10000 --clients 64 --kills 50 --split
	bench/drill-payments.sh
	TARGET=postgres bench/drill-payments.sh

bench: ## the figures of bench/FIGURES.md: what serving everything costs, the gateway beside nginx and Envoy; root, Debian, 2 quiet cores
	CARGO_PROFILE_RELEASE_LTO=thin cargo build --locked --release -p lastmile -p lastmile-tests --bin lastmile --bin gateway-bench
	bench/serve.sh target/release/lastmile
	bench/gateway/lastmile.sh

check: deny doc ## format, lints, proto rules, and what `make deny` and `make doc` hold
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	tests/venv.sh
	target/venv/bin/buf lint

doc: ## the crates' documentation, in target/doc; a broken link or example fails
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps

deny: ## licences, sources and forbidden crates among the dependencies; advisories where their database can be had
	tests/deny.sh

gen: ## writes crates/contracts/src/gen from proto/
	cargo run --locked -q -p contracts-generator

clean: ## removes what was built and the data of `make run`
	cargo clean
	rm -rf var
