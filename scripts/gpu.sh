#!/usr/bin/env bash
# One command for a machine with an NVIDIA GPU and torch 2.11 in its Python: runs the reference decodings on the GPU,
# then trains a model there (resuming after an interruption) and decodes the test split with it.
#
#   scripts/gpu.sh [TRAINING_CONFIG]        default: configs/train/debian-en-fr-gpu.toml
#
# Builds against that torch where cargo is installed. Without cargo it uses target/release/calm, built elsewhere against
# libtorch 2.11 for the same processor family: LD_LIBRARY_PATH has precedence over the path built into it.
set -euo pipefail
cd "$(dirname "$0")/.."
config=${1:-configs/train/debian-en-fr-gpu.toml}
device=${DEVICE:-cuda:0}

LIBTORCH=$(python3 -c 'import torch, os; print(os.path.dirname(torch.__file__))')
export LIBTORCH LD_LIBRARY_PATH="$LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

if command -v cargo >/dev/null; then
  CALM_TEST_DEVICE=$device cargo test --release -p calm-model
  cargo build --release -p calm-cli
fi
calm=target/release/calm

[ -f data/train/translation.parquet ] || "$calm" data debian --out data
"$calm" train "$config" --device "$device"

model=$(sed -n 's/^output = "\(.*\)"/\1/p' "$config")
printf '{"source": "translate English to French: This package contains the documentation."}\n' |
  "$calm" generate --model "$model" --input - --policy calm --threshold 0.9 --device "$device"
