#!/usr/bin/env bash
# Measures one checkpoint in one run on calm and on the runtimes that T5 is served with otherwise, and prints ratios.
#
#   benches/compare/run.sh [--model random:t5-v1_1-small] [--batch-size 1] [--source-tokens 64] [--new-tokens 64] [--rounds 3]
#
# Installs transformers, torch and CTranslate2 from PyPI into a virtual environment under target/compare (several GB). Each round
# measures all of them, one after the other, so that a machine that slows down slows all of them; a figure is the median of the rounds.
set -euo pipefail
cd "$(dirname "$0")/../.."

model=random:t5-v1_1-small batch_size=1 source_tokens=64 new_tokens=64 rounds=3
while [ $# -gt 0 ]; do
  case $1 in
    --model) model=$2 ;;
    --batch-size) batch_size=$2 ;;
    --source-tokens) source_tokens=$2 ;;
    --new-tokens) new_tokens=$2 ;;
    --rounds) rounds=$2 ;;
    *) echo "unknown argument $1" >&2; exit 2 ;;
  esac
  shift 2
done

target=target/compare
python=$target/venv/bin/python
if [ ! -e "$target/complete" ]; then
  echo "installing transformers and CTranslate2 into $target/venv" >&2
  python3 -m venv "$target/venv"
  "$python" -m pip install --quiet --disable-pip-version-check torch==2.11.0 'transformers>=5,<6' ctranslate2==4.8.1
  touch "$target/complete"
fi
cargo build --quiet --release -p calm-cli --no-default-features --features cpu --target-dir target/cpu-only
calm=target/cpu-only/release/calm

checkpoint=$model
if [[ $model == random:* ]]; then
  checkpoint=$target/${model#random:}
  rm -rf "$checkpoint"*
  "$calm" bench --model "$model" --save "$checkpoint" --dtype int8 --new-tokens 2 --repetitions 1 >/dev/null
fi
shape=(--source-tokens "$source_tokens" --new-tokens "$new_tokens" --batch-size "$batch_size")
rm -f "$target"/round-*
for round in $(seq "$rounds"); do
  for threads in 1 2; do
    "$calm" bench --model "$checkpoint" "${shape[@]}" --threads $threads --repetitions 5 \
      --json "$target/round-$round-$threads.json" >/dev/null
  done
  "$python" benches/compare/peers.py "$checkpoint" "${shape[@]}" --threads 1 2 2>/dev/null >"$target/round-$round.jsonl"
done
"$python" benches/compare/table.py "$target"
