#!/usr/bin/env bash
# Trains and measures in one call, on a machine that has a GPU and torch 2.11 in its Python, but perhaps
# neither cargo nor a network.
#
#   scripts/gpu.sh pack [CONFIG]   is called where cargo is. It puts all that must travel in addition to the
#                                  files of git into gpu-pack/pack.tar.xz.
#   scripts/gpu.sh run [CONFIG]    is called there, where the files of git and gpu-pack/ were copied to. It
#                                  runs tests, training, decode figures and scores in BUDGET seconds (570),
#                                  and puts what is worth keeping into the folder OUT (gpu-results).
#   scripts/gpu.sh rehearse        does both on the CPU of this machine, with a tiny model: the first try on a
#                                  GPU should be the last.
#
# CONFIG is configs/train/bundled.toml if it is not given; without a command, `run` is taken. Each command is
# a file in scripts/gpu/, whose head says what else can be set in the environment.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  pack | run | rehearse) exec bash "scripts/gpu/$1.sh" "${@:2}" ;;
  *) exec bash scripts/gpu/run.sh "$@" ;;
esac
