#!/usr/bin/env bash
# One command for a machine with an NVIDIA GPU and torch 2.11 in its Python: runs the reference decodings on the GPU, then trains
# a model there (going on where an earlier call stopped) and decodes a sentence with it.
#
#   scripts/gpu.sh [TRAINING_CONFIG [MINUTES]]      default: configs/train/bundled.toml, to the end
#   scripts/gpu.sh pack [TRAINING_CONFIG]           on any machine: makes all that the training needs on one without cargo, network
#                                                   and data, in gpu-pack/
#
# With MINUTES the training pauses after that time; the same command goes on. Checkpoints, and the weights at the end, are in files of
# at most 16 MB.
#
# Builds against that torch where cargo is installed. Without cargo it uses target/release/calm, or gpu-pack/calm, built elsewhere
# against libtorch 2.11 for the same processor family: LD_LIBRARY_PATH has precedence over the path built into it.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${DEVICE:-cuda:0}

pack() {
  local config=${1:-configs/train/bundled.toml} checkpoints
  cargo build --release -p calm-cli
  [ -f data/train/translation.parquet ] || target/release/calm data debian --out data
  target/release/calm train "$config" --prepare
  checkpoints=$(sed -n 's/^checkpoints = "\(.*\)"/\1/p' "$config")
  mkdir -p gpu-pack
  strip -o gpu-pack/calm target/release/calm
  # The tokens are names of 16 bits: gzip halves them.
  tar -czf gpu-pack/data.tar.gz "$checkpoints"/*.tokens
  ls -l gpu-pack
}

if [ "${1:-}" = pack ]; then
  pack "${2:-}"
  exit
fi

config=${1:-configs/train/bundled.toml}
limit=${2:+--time-limit $2}
LIBTORCH=$(python3 -c 'import torch, os; print(os.path.dirname(torch.__file__))')
export LIBTORCH LD_LIBRARY_PATH="$LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

if command -v cargo >/dev/null; then
  CALM_TEST_DEVICE=$device cargo test --release -p calm-model
  cargo build --release -p calm-cli
fi
calm=target/release/calm
[ -x "$calm" ] || calm=gpu-pack/calm

if [ -f gpu-pack/data.tar.gz ]; then
  tar -xzf gpu-pack/data.tar.gz --skip-old-files
elif [ ! -f data/train/translation.parquet ]; then
  "$calm" data debian --out data
fi
# Unquoted, so that no limit is no argument.
"$calm" train "$config" --device "$device" $limit

model=$(sed -n 's/^output = "\(.*\)"/\1/p' "$config")
[ -f "$model/config.json" ] || exit 0
printf '{"source": "translate English to French: This package contains the documentation."}\n' |
  "$calm" generate --model "$model" --input - --policy calm --threshold 0.9 --device "$device"
