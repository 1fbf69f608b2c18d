# What the commands of scripts/gpu.sh have in common. They source this file in the repository's root.
# shellcheck shell=bash disable=SC2034

default_config=configs/train/bundled.toml
mib=$((1 << 20))

# Prints the value of a key at the top level of a training configuration.
config_value() {
  python3 -c 'import sys, tomllib; print(tomllib.load(open(sys.argv[1], "rb"))[sys.argv[2]])' "$1" "$2"
}

# Prints a line `NAME METRIC` for each task of a training configuration.
config_tasks() {
  python3 -c '
import sys, tomllib
for task in tomllib.load(open(sys.argv[1], "rb"))["data"]["tasks"]:
    print(task["name"], task.get("metric", "bleu"))' "$1"
}

# Prints, with a zero after each, the files that travel in addition to gpu-pack/: those of git, and new ones
# that it does not ignore. The weights of the model that is trained there would be most of it and are made
# anew, language models are not decoded there, and of the tests those of calm-model and calm-train are run;
# leave the rest out of the copy.
files_of_git() {
  git ls-files -z --cached --others --exclude-standard --deduplicate -- . ':!models/bundled/*.safetensors' \
    ':!models/smollm2-135m' ':!data/prompts' ':!docs' ':!calm-fuzz' ':!calm-cpu/tests' \
    ':!calm-checkpoint/tests' ':!calm-metrics/tests'
}
