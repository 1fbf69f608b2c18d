#!/usr/bin/env bash
# Measures a decoder-only GGUF file in one run on llama.cpp, transformers and calm, and how fast the machine reads memory meanwhile.
#
#   benches/compare/llm.sh --model FILE.gguf [--rounds 5] [--threads "1 2"] [--calm COMMAND] [--runtimes "llama.cpp;calm"]
#
# Builds llama.cpp for this processor (the sources are in llama-cpp-python's package on PyPI; needs a C++ compiler) and installs torch and
# transformers into a virtual environment under target/compare-llm (several GB), and builds calm unless a command is given. Each round
# measures all of them, one after the other, so that a machine that slows down slows all of them. Names of runtimes are in llm.py.
set -euo pipefail
cd "$(dirname "$0")/../.."

model='' rounds=5 threads='1 2' calm=''
runtimes='llama.cpp;llama.cpp, no repacked weights;transformers f32;transformers bf16;calm'
while [ $# -gt 0 ]; do
  case $1 in
    --model) model=$2 ;;
    --rounds) rounds=$2 ;;
    --threads) threads=$2 ;;
    --calm) calm=$2 ;;
    --runtimes) runtimes=$2 ;;
    *) echo "unknown argument $1" >&2; exit 2 ;;
  esac
  shift 2
done
[ -f "$model" ] || { echo "--model FILE.gguf is missing" >&2; exit 2; }

target=target/compare-llm
python=$target/venv/bin/python
if [ ! -e "$target/complete" ]; then
  echo "building llama.cpp and installing transformers into $target/venv" >&2
  python3 -m venv "$target/venv"
  CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" "$python" -m pip install --quiet --disable-pip-version-check \
    --no-binary llama-cpp-python llama-cpp-python==0.3.36
  "$python" -m pip install --quiet --disable-pip-version-check torch==2.11.0 'transformers>=5,<6' gguf==0.19.0 accelerate==1.15.0
  touch "$target/complete"
fi
if [ ! -e "$target/read_memory" ]; then
  cc -O3 -march=native -pthread benches/compare/read_memory.c -o "$target/read_memory"
fi
if [ -z "$calm" ] && [[ ";$runtimes;" == *";calm;"* ]]; then
  cargo build --quiet --release -p calm-cli --no-default-features --features cpu --target-dir target/cpu-only
  calm=target/cpu-only/release/calm
fi

megabytes=$(($(stat -c %s "$model") / 1000000))
rm -f "$target"/round-*
IFS=';' read -ra names <<<"$runtimes"
for round in $(seq "$rounds"); do
  for count in $threads; do
    "$target/read_memory" "$count" 5 "$megabytes" 1000 >>"$target/round-$round.jsonl"
    for name in "${names[@]}"; do
      OMP_NUM_THREADS=$count "$python" benches/compare/llm.py measure "$name" "$model" --threads "$count" --calm "$calm" \
        2>"$target/errors.txt" >>"$target/round-$round.jsonl" || { tail -3 "$target/errors.txt" >&2; exit 1; }
    done
  done
  echo "round $round of $rounds, load $(cut -d' ' -f1 /proc/loadavg)" >&2
done
lscpu | sed -n 's/^Model name: *//p; s/^L3 cache: */L3 cache /p'
"$python" benches/compare/llm.py table "$target"
