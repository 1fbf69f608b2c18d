#!/usr/bin/env bash
# Makes the archive that scripts/gpu.sh run unpacks: the command, the tests of calm-model and calm-train, the
# training data as tokens, and test sources to decode. Files that git tracks travel by themselves and are not
# in it.
#
# PROFILE=dev takes the binaries of the test suite's build instead of release ones. PACK is the folder that
# receives the archive, and XZ_PRESET says how hard to compress it.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/gpu/common.sh

config=${1:-$default_config}
profile=${PROFILE:-release}
pack=${PACK:-gpu-pack}
test_examples=2000
# What can travel to the GPU machine.
limit=$((64 * mib))

# Prints a line `NAME PATH` for each executable. It builds the whole workspace, so that features, and with
# them builds, are those of the test suite.
build() {
  cargo build --profile "$profile" --workspace --bin calm --example data_lines --test model --test training \
    --message-format json-render-diagnostics |
    python3 -c '
import json, sys
for message in map(json.loads, sys.stdin):
    if message.get("executable"):
        print(message["target"]["name"], message["executable"])'
}

add_binaries() {
  local name
  mkdir -p "$staging/gpu-run/bin"
  for name in calm model training; do
    strip -o "$staging/gpu-run/bin/$name" "${executables[$name]}"
  done
}

add_tokens() {
  local checkpoints
  if grep -q '"data/train/' "$config" && [ ! -f data/train/translation.parquet ]; then
    "${executables[calm]}" data debian --out data
  fi
  "${executables[calm]}" train "$config" --prepare
  checkpoints=$(config_value "$config" checkpoints)
  mkdir -p "$staging/$checkpoints"
  cp "$checkpoints"/*.tokens "$staging/$checkpoints"
}

# `calm generate` reads JSON Lines, but the test splits are Parquet.
add_test_sources() {
  local task metric
  mkdir -p "$staging/gpu-run/sources"
  while read -r task metric; do
    "${executables[data_lines]}" "data/$task/test.parquet" "$test_examples" >"$staging/gpu-run/sources/$task.jsonl"
    echo "$task: $(wc -l <"$staging/gpu-run/sources/$task.jsonl") test examples for $metric"
  done < <(config_tasks "$config")
}

# Everything goes into one archive, in which the binaries share what they have in common.
compress() {
  mkdir -p "$pack"
  # The folder itself is left out, since its mode would become that of the folder in which it is unpacked.
  (cd "$staging" && tar --sort=name --owner=0 --group=0 --mtime=@0 -cf - -- *) |
    xz -T0 "${XZ_PRESET:--9e}" >"$pack/pack.tar.xz"
}

# Prints lines `BYTES PART`, largest first: the archive, and the files of git by folder.
travelling_parts() {
  {
    stat -c '%s %n' "$pack/pack.tar.xz"
    files_of_git | xargs -0 stat -c '%s %n' | awk '
      { bytes = $1; path = substr($0, length($1) + 2); depth = split(path, folders, "/") }
      { sum[depth > 2 ? folders[1] "/" folders[2] : folders[1]] += bytes }
      END { for (part in sum) print sum[part], part }'
  } | sort -rn
}

report_sizes() {
  local total
  echo "In the archive, before compression:"
  (cd "$staging" && find . -type f -printf '%s %P\n' | sort -rn | in_mib)
  echo "What travels:"
  travelling_parts | in_mib | head -12
  total=$(travelling_parts | awk '{ sum += $1 } END { print sum }')
  echo "$total sum" | in_mib
  if ((total > limit)); then
    echo "error: $((total / mib)) MiB would travel, and at most $((limit / mib)) may; the largest parts are" >&2
    travelling_parts | in_mib | head -3 >&2
    exit 1
  fi
}

in_mib() {
  awk -v mib="$mib" '{ printf "%10.2f MiB  %s\n", $1 / mib, substr($0, length($1) + 2) }'
}

staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
declare -A executables
while read -r name path; do executables[$name]=$path; done < <(build)
[ -n "${executables[training]:-}" ] || { echo "error: the build failed" >&2; exit 1; }
add_binaries
add_tokens
add_test_sources
compress
report_sizes
