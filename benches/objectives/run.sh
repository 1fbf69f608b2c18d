#!/usr/bin/env bash
# Compares training objectives by what their exits save: the same time of training from the same start for each, maps of confidence fitted
# to each, and thresholds certified for each.
#
#   benches/objectives/run.sh [--minutes 30] [--threads N] [NAME...]
#
# Names are those below; all of them if none is given. Needs libtorch and data/train/translation.parquet (`calm data debian --out data`).
# What is finished is kept under target/objectives and not done again.
set -euo pipefail
cd "$(dirname "$0")/../.."

minutes=30 threads=$(nproc) names=()
while [ $# -gt 0 ]; do
  case $1 in
    --minutes) minutes=$2; shift 2 ;;
    --threads) threads=$2; shift 2 ;;
    -*) echo "unknown argument $1" >&2; exit 2 ;;
    *) names+=("$1"); shift ;;
  esac
done

declare -A objectives=(
  [linear]='sampled_exits=1 exit_weights="linear"'
  [uniform]='sampled_exits=1 exit_weights="uniform"'
  [rotating]='sampled_exits=1 sampling="rotating"'
  [last-0.5]='sampled_exits=1 last_weight=0.5'
  [last-0.7]='sampled_exits=1 last_weight=0.7'
  [distilled-0.5]='sampled_exits=1 distillation=0.5'
  [distilled-0.9]='sampled_exits=1 distillation=0.9'
  [layer-dropout]='sampled_exits=1 layer_dropout=0.1'
  [uniform-distilled]='sampled_exits=1 exit_weights="uniform" distillation=0.5'
  [shallow-deep]='shallow_deep={layer=4}'
)
[ ${#names[@]} -gt 0 ] || names=(linear uniform rotating last-0.5 last-0.7 distilled-0.5 distilled-0.9 layer-dropout uniform-distilled shallow-deep)

cargo build --quiet --release -p calm-cli -p calm-experiments
for name in "${names[@]}"; do
  [ -n "${objectives[$name]:-}" ] || { echo "unknown objective $name" >&2; exit 2; }
  folder=target/objectives/$name
  [ ! -e "$folder/run/summary.json" ] || continue
  settings=()
  for setting in ${objectives[$name]}; do settings+=(--set "objective.$setting"); done
  target/release/calm train benches/objectives/base.toml --threads "$threads" --time-limit "$minutes" "${settings[@]}" \
    --set "output=\"$folder/model\"" --set "checkpoints=\"$folder\""
  target/release/calm fit-confidence --model "$folder/model" --data data/train/translation.parquet --experiment configs/wmt.toml \
    --limit 600 --max-tokens 72 --max-source-tokens 80
  target/release/calm-experiments configs/wmt.toml --out "$folder/run" --set "model=\"$folder/model\"" --set sweep.oracle=false \
    --set 'sweep.measures=["agreement"]' --set 'sweep.measure.agreement.exits=[1, 2, 3, 4, 5, 6, 7]' --set calibration.trials.count=0 \
    --set 'sweep.measure.agreement.thresholds=[0.995, 0.98, 0.96, 0.94, 0.92, 0.9, 0.88, 0.85, 0.82, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]'
done
python3 benches/objectives/table.py "${names[@]}"
