# `make run` is the experiment, `make test` the whole test suite, which fetches libtorch first when it is missing.

.PHONY: run test libtorch

run:
	cargo run --release -p calm-experiments -- configs/wmt.toml

test: libtorch
	cargo test --workspace

libtorch:
	@./scripts/setup-libtorch.sh
