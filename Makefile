# `make run` is the experiment, `make llm` shows a decoder-only model, which it fetches, and `make test` is the whole
# test suite, which fetches libtorch and a browser first when they are missing.

.PHONY: run llm test libtorch chromium

run:
	cargo run --release -p calm-experiments -- configs/wmt.toml

llm:
	@./scripts/llm.sh

test: libtorch chromium
	cargo test --workspace

libtorch:
	@./scripts/setup-libtorch.sh

chromium:
	@./scripts/setup-chromium.sh
