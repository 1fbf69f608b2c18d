#!/usr/bin/env bash
# Does everything that is to be done on the GPU machine. A step that fails is recorded and the next one
# follows; a step that hangs is stopped; and before the time is over the results are copied, whatever
# happened.
#
# DEVICE is the device (cuda:0), BUDGET the seconds in all, RESERVE those of them after the last training
# step, OUT the folder for results, LIBTORCH a torch other than that of python3. With QUICK=1 every step does
# just enough to show that it works.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/gpu/common.sh

config=${1:-$default_config}
device=${DEVICE:-cuda:0}
budget=${BUDGET:-570}
# The exit classifier and the training's own scores take the first part of the reserve, decoding takes the
# rest.
reserve=${RESERVE:-120}
results=${OUT:-gpu-results}
# Number of seconds at the end in which only the copying is done.
copying=15
# Limits of what comes back: the number of files, the size of each of them, and of all together.
max_files=8
max_file_bytes=$((16 * mib))
max_bytes=$((64 * mib))

# Where the archive of pack.sh has what it packed.
calm=gpu-run/bin/calm
sources=gpu-run/sources
# The small files to keep, among them the log, and a line `STEP STATUS SECONDS` for each step.
kept=gpu-run/kept

if [ -z "${QUICK:-}" ]; then
  # An empty filter runs all tests of calm-model.
  test_filter=
  test_examples=2000
  bench=(--batch-size "1,8,32" --repetitions 3)
  random_batch_sizes="1 32"
else
  test_filter=${TEST_FILTER-in_batches_of_mixed_lengths}
  test_examples=4
  bench=(--batch-size "1,2" --repetitions 1 --new-tokens 2)
  random_batch_sizes=1
fi

sampler=
# The process of the step that is running, and the step's name.
running=
running_step=

main() {
  trap finish EXIT
  trap 'say "the time is over"; exit 124' USR1 TERM INT
  start_watchdog
  unpack
  set_environment
  show_machine
  test_on_device
  train
  measure_speed
  measure_peers
  generate_samples
  score_trained_model
}

say() {
  echo "== $SECONDS s: $*" >&3
}

seconds_left() {
  echo $((budget - copying - SECONDS))
}

# step NAME SECONDS COMMAND...: runs a command for at most that long, and for as long as there is time. Its
# output is the step's own to redirect.
step() {
  local name=$1 limit=$2 left status=0 started=$SECONDS
  shift 2
  left=$(seconds_left)
  ((limit < left)) || limit=$left
  if ((limit < 1)); then
    say "$name: no time left"
    status=skipped
  else
    say "$name, at most $limit s: $*"
    # The command runs in the background, since a signal interrupts `wait` but not a command.
    timeout --kill-after=5 "$limit" "$@" &
    running=$! running_step=$name
    wait "$running" || status=$?
    running=
  fi
  record "$name" "$status" $((SECONDS - started))
}

record() {
  say "$1: status $2 after $3 s"
  printf '%s\t%s\t%s\n' "$@" >>"$kept/steps.tsv"
}

# A process that waits for the GPU's driver cannot be killed. Then the watchdog still brings the results home.
start_watchdog() {
  (
    sleep $((budget - copying + 5))
    kill -USR1 $$
  ) >/dev/null 2>&1 3>&- &
  watchdog=$!
}

unpack() {
  if [ ! -f gpu-pack/pack.tar.xz ]; then
    command -v cargo >/dev/null || { say "gpu-pack/pack.tar.xz is missing: scripts/gpu.sh pack makes it where cargo is"; exit 1; }
    bash scripts/gpu/pack.sh "$config"
  fi
  # The archive is unpacked by Python, since the machine may have no xz.
  step unpack 60 python3 -m tarfile -e gpu-pack/pack.tar.xz .
}

set_environment() {
  if [ -z "${LIBTORCH:-}" ]; then
    # The path is found without importing torch, which takes seconds.
    LIBTORCH=$(python3 -c 'import importlib.util, os; print(os.path.dirname(importlib.util.find_spec("torch").origin))')
  fi
  # This has precedence over the path that was built into the binaries. CUDA's own libraries are wheels next
  # to torch.
  LD_LIBRARY_PATH="$LIBTORCH/lib$(printf ':%s' "$LIBTORCH"/../nvidia/*/lib)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  export LIBTORCH LD_LIBRARY_PATH
  # Without this, cuDNN's attention comes first on Hopper: it takes 55 to 400 ms for each new shape, and masks
  # have open bugs there.
  export TORCH_CUDNN_SDPA_DEPRIORITIZED=1
  export CALM_TEST_DEVICE=$device
}

show_machine() {
  {
    nvidia-smi -L || echo "no nvidia-smi"
    nvidia-smi --query-gpu=driver_version,memory.total,clocks.max.sm,power.limit --format=csv || true
    echo "torch $(sed -n "s/^__version__ = '\(.*\)'/\1/p" "$LIBTORCH/version.py") in $LIBTORCH"
    echo "$(nproc) cores, $(getconf GNU_LIBC_VERSION), Python $(python3 -c 'import platform; print(platform.python_version())')"
    # These change the arithmetic of f32.
    env | grep TF32 || true
    df -h .
  } 2>&1 | tee "$kept/machine.txt"
  # What the GPU did all the time tells a step that waits for launches from one that computes.
  nvidia-smi --query-gpu=timestamp,utilization.gpu,memory.used,power.draw,clocks.sm --format=csv -l 2 \
    >"$kept/gpu.csv" 2>/dev/null 3>&- &
  sampler=$!
}

test_on_device() {
  step test-model 90 gpu-run/bin/model --test-threads 1 "$test_filter"
  step test-training 60 gpu-run/bin/training --test-threads 1 device::
}

train() {
  local seconds
  seconds=$(($(seconds_left) - reserve))
  # The time limit of the command is that of its steps; the limit here includes what follows them.
  step train $((seconds + reserve * 2 / 3)) "$calm" train "$config" --overwrite --device "$device" \
    --time-limit "$(awk -v seconds="$seconds" 'BEGIN { print seconds / 60 }')"
}

has_trained_model() {
  # config.json is written after the weights.
  [ "$(config_value "$config" output)/config.json" -nt "$kept/started" ]
}

# Prints the models to measure, the new one first.
models() {
  if has_trained_model; then config_value "$config" output; fi
  printf '%s\n' models/debian-en-fr models/debian-tasks
}

measure_speed() {
  local model name
  for model in $(models); do
    name=bench-$(basename "$model")
    step "$name" 40 "$calm" bench --model "$model" --engine libtorch --device "$device" "${bench[@]}" \
      --policy full --policy static-3 --policy calm-state-0.95 --policy calm-softmax-0.5 --json "$kept/$name.json"
  done
  step bench-cpu 20 "$calm" bench --model models/debian-en-fr --engine cpu --dtype bf16 "${bench[@]}" \
    --policy full --policy calm-state-0.95 --json "$kept/bench-cpu.json"
}

# Whole calls of random weights, beside transformers where this machine has it.
measure_peers() {
  local model=gpu-run/t5-v1_1-small batch_size shape
  python3 -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("transformers"))' || return 0
  step save-random 20 "$calm" bench --model "random:${model##*/}" --save "$model" --dtype int8 --new-tokens 2 --repetitions 1
  for batch_size in $random_batch_sizes; do
    shape=(--batch-size "$batch_size" --source-tokens 64 --new-tokens 64 --repetitions 3)
    step "bench-random-$batch_size" 20 "$calm" bench --model "$model" --engine libtorch --device "$device" "${shape[@]}" \
      --policy full --policy static-3 --json "$kept/bench-random-$batch_size.json"
    step "peers-$batch_size" 45 python3 benches/compare/peers.py "$model" --device "$device" "${shape[@]}" --threads 1 \
      >"$kept/peers-$batch_size.jsonl"
  done
}

# The samples are for comparison with what other machines and the other engine generate.
generate_samples() {
  local model task
  for model in $(models); do
    task=translation
    [ "$model" != models/debian-tasks ] || task=qa
    head -n 32 "$sources/$task.jsonl" >"$kept/$task-sample.jsonl"
    step "generate-$(basename "$model")" 20 "$calm" generate --model "$model" --device "$device" --input "$kept/$task-sample.jsonl" \
      --output "$kept/$(basename "$model")-$task-sample.jsonl" --policy calm --measure state --threshold 0.95 --batch-size 8
  done
}

score_trained_model() {
  local model task metric tasks
  has_trained_model || return 0
  model=$(config_value "$config" output)
  tasks=$(config_tasks "$config" | wc -l)
  while read -r task metric; do
    head -n "$test_examples" "$sources/$task.jsonl" >"$kept/$task-test.jsonl"
    step "decode-$task" $(($(seconds_left) / tasks)) "$calm" generate --model "$model" --device "$device" \
      --input "$kept/$task-test.jsonl" --output "$kept/$task-outputs.jsonl" --batch-size 128 --max-source-tokens 256
    step "score-$task" 10 "$calm" score --metric "$metric" --hypotheses "$kept/$task-outputs.jsonl" \
      --references "$kept/$task-test.jsonl" --json "$kept/$task-score.json"
    tasks=$((tasks - 1))
  done < <(config_tasks "$config")
}

finish() {
  local status=$? failed
  kill "$watchdog" $sampler 2>/dev/null || true
  # The step is killed with all that it started: timeout makes a process group of its own.
  if [ -n "$running" ]; then
    kill -KILL -- "-$running" 2>/dev/null || true
    record "$running_step" stopped "$SECONDS"
  fi
  copy_results || status=1
  check_results || status=1
  failed=$(awk '$2 != "0" { printf " %s (%s)", $1, $2 }' "$kept/steps.tsv")
  if [ -n "$failed" ]; then say "steps that did not end well:$failed"; status=1; fi
  exit "$status"
}

# Copies the weights as they are, and all the rest as one archive. Of an unfinished training only the log is
# worth copying.
copy_results() {
  local model
  model=$(config_value "$config" output)
  mkdir -p "$results"
  rm -f "$results"/*.safetensors "$results/results.tar.gz"
  cp "$(config_value "$config" checkpoints)/log.jsonl" "$kept" || say "there is no log of the training"
  if has_trained_model; then
    mkdir -p "$kept/model"
    find "$model" -maxdepth 1 -type f ! -name '*.safetensors' ! -name tokenizer.json -exec cp -t "$kept/model" {} +
    cp "$model"/*.safetensors "$results"
  else
    say "there is no trained model"
  fi
  tar -C "$kept" -czf "$results/results.tar.gz" .
}

# Says which results would not come back.
check_results() {
  local file size count=0 sum=0 status=0
  while read -r size file; do
    count=$((count + 1)) sum=$((sum + size))
    if ((size > max_file_bytes)); then say "$file has $size bytes, more than $max_file_bytes"; status=1; fi
    if [[ ! $file =~ ^[A-Za-z0-9._-]+$ ]]; then say "$file has a name or a place that does not come back"; status=1; fi
  done < <(find "$results" -type f -printf '%s %P\n')
  say "$count files of $sum bytes are in $results"
  ((count <= max_files)) || { say "these are more than $max_files files"; status=1; }
  ((sum <= max_bytes)) || { say "this is more than $max_bytes bytes"; status=1; }
  return "$status"
}

rm -rf "$kept"
mkdir -p "$kept"
touch "$kept/started" "$kept/steps.tsv"
exec > >(tee "$kept/run.log") 2>&1 3>&1
main
