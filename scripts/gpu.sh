#!/usr/bin/env bash
# Trains and measures on a machine that has a GPU and torch 2.11 in its Python, but perhaps neither cargo nor a network, in one call.
#
#   scripts/gpu.sh pack [CONFIG]     where cargo is: puts all that must travel beside the files of git into gpu-pack/pack.tar.xz
#   scripts/gpu.sh run [CONFIG]      there, where the files of git and gpu-pack/ were copied to: tests, training, decode figures and
#                                    scores within BUDGET seconds (570), and what is worth keeping in the folder OUT (gpu-results)
#   scripts/gpu.sh rehearse          both on the CPU of this machine, with a tiny model: the first try on a GPU should be the last
#
# CONFIG is configs/train/bundled.toml if not given, and without a command it is run. Each command is a file in scripts/gpu/, whose
# head names what else can be set in the environment.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  pack | run | rehearse) exec bash "scripts/gpu/$1.sh" "${@:2}" ;;
  *) exec bash scripts/gpu/run.sh "$@" ;;
esac
