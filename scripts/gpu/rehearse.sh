#!/usr/bin/env bash
# Packs, and runs what was packed on this machine's CPU as a GPU machine would: in an empty folder with what
# would travel, without cargo and, if that is permitted, without network and without this checkout. Then it
# looks at what would come back.
#
# PROFILE=release rehearses with the binaries that would travel. Those of the test suite (dev) are built
# already if it has run.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/gpu/common.sh

config=configs/train/rehearsal.toml
export PROFILE=${PROFILE:-dev}
checkout=$PWD

main() {
  copy_data
  PACK="$folder/there/gpu-pack" XZ_PRESET=-2 scripts/gpu/pack.sh "$config"
  files_of_git | tar --null --files-from=- -cf - | tar -C "$folder/there" -xf -
  ./scripts/setup-libtorch.sh
  run_there || { echo "error: the run failed" >&2; exit 1; }
  check_results
}

# The copies have names that do not travel, so that the run has only the packed tokens.
copy_data() {
  local task checkpoints
  checkpoints=$(config_value "$config" checkpoints)
  mkdir -p "$checkpoints"
  while read -r task _; do
    cp "data/$task/calibration.parquet" "$checkpoints/$task.parquet"
  done < <(config_tasks "$config")
}

run_there() {
  local libtorch hidden
  # The packages of CUDA are next to it.
  libtorch=$(realpath "${LIBTORCH:-.libtorch/torch}")
  export PATH LIBTORCH="$folder/libtorch/${libtorch##*/}"
  PATH=$(path_without_cargo)
  export OUT="$folder/back" DEVICE=cpu BUDGET=240 RESERVE=100 QUICK=1
  # Threads that spin while they wait for each other are very slow if another process wants the cores.
  export OMP_WAIT_POLICY=PASSIVE
  # shellcheck disable=SC2016 # These are the inner shell's arguments.
  hidden='mount --bind "$1" "$2/libtorch" && mount -t tmpfs none "$3" && cd "$2/there" && exec scripts/gpu.sh run "$4"'
  mkdir "$folder/libtorch"
  if unshare --map-root-user --net --mount true 2>/dev/null; then
    unshare --map-root-user --net --mount bash -c "$hidden" bash "${libtorch%/*}" "$folder" "$checkout" "$config"
  else
    echo "note: unshare is not permitted here: the run sees the network and this checkout"
    rmdir "$folder/libtorch"
    ln -s "${libtorch%/*}" "$folder/libtorch"
    (cd "$folder/there" && scripts/gpu.sh run "$config")
  fi
}

path_without_cargo() {
  local part parts kept=()
  IFS=: read -ra parts <<<"$PATH"
  for part in "${parts[@]}"; do
    [ -x "$part/cargo" ] || kept+=("$part")
  done
  (IFS=: && echo "${kept[*]}")
}

# run.sh itself checks the status of each step and the limits.
check_results() {
  local file missing=0
  mkdir "$folder/results"
  tar -C "$folder/results" -xzf "$folder/back/results.tar.gz"
  for file in back/model.safetensors results/{run.log,steps.tsv,machine.txt,log.jsonl} \
    results/model/{config.json,training.json,learning_curves.svg} \
    results/bench-{rehearsal,debian-en-fr,debian-tasks,cpu}.json \
    results/{rehearsal-translation,debian-en-fr-translation,debian-tasks-qa}-sample.jsonl \
    results/{translation,summarisation,qa}-{outputs.jsonl,score.json}; do
    [ -s "$folder/$file" ] || { echo "error: $file did not come back" >&2; missing=1; }
  done
  cat "$folder/results/steps.tsv"
  return "$missing"
}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/there"
main
