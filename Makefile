# `make run` is the experiment, `make llm` shows a decoder-only model, which it fetches, and `make test` is the whole
# test suite, which fetches libtorch first when it is missing.

.PHONY: run llm test libtorch

run:
	cargo run --release -p calm-experiments -- configs/wmt.toml

llm:
	@./scripts/llm.sh

test: libtorch
	cargo test --workspace

libtorch:
	@./scripts/setup-libtorch.sh
