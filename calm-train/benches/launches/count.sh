#!/usr/bin/env bash
# Counts the operations of a training step, on the CPU, that would be launches on a GPU: those of six steps less those of two, by four.
#
#   calm-train/benches/launches/count.sh [CALM]     default: target/release/calm
#
# The shape is that of configs/train/bundled.toml. Norms and attention have fused kernels on CUDA alone, so that there a step has about half
# as many launches.
set -euo pipefail
cd "$(dirname "$0")/../../.."
calm=${1:-target/release/calm}
torch=$(realpath "${LIBTORCH:-.libtorch/torch}")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

g++ -std=c++17 -O1 -shared -fPIC "-I$torch/include" calm-train/benches/launches/count.cpp "-L$torch/lib" -lc10 -ltorch_cpu \
  -o "$folder/count.so"

count() {
  sed -e 's/^steps = 30000/steps = '"$1"'/; s/^warmup_steps.*/warmup_steps = 1/; s/^decay_steps.*/decay_steps = 1/' \
    -e 's/^steps = 400/steps = 0/; s/^examples = .*/examples = 0/; s/^batch_tokens.*/batch_tokens = 600/' \
    -e 's/^max_source_tokens.*/max_source_tokens = 64/; s/^max_target_tokens.*/max_target_tokens = 32/' \
    -e "s|^output = .*|output = \"$folder/model\"|; s|^checkpoints = .*|checkpoints = \"$folder/$1\"|" \
    -e 's|data/train/\([a-z]*\)|data/\1/calibration|' configs/train/bundled.toml >"$folder/$1.toml"
  OMP_NUM_THREADS=1 LD_LIBRARY_PATH="$torch/lib" LD_PRELOAD="$folder/count.so" \
    "$calm" train "$folder/$1.toml" --device cpu 2>&1 >/dev/null | grep -E '^[0-9]+ [a-z_0-9]+$'
}

count 2 >"$folder/few"
count 6 >"$folder/more"
awk 'NR == FNR { few[$2] = $1; next } { count = ($1 - few[$2]) / 4; sum += count; if (count >= 1) printf "%8.1f %s\n", count, $2 }
  END { printf "%8.1f operations a step\n", sum }' "$folder/few" "$folder/more" | sort -rn
