#!/usr/bin/env bash
# Calibrates the same tables of losses with economize and with calm, and prints where their thresholds part.
#
#   benches/compare/calibration.sh [--calm COMMAND]
#
# Installs economize, which needs torch and transformers, from PyPI into a virtual environment under target/compare-calibration
# (several GB), and builds calm unless a command is given.
set -euo pipefail
cd "$(dirname "$0")/../.."

calm=
while [ $# -gt 0 ]; do
  case $1 in
    --calm) calm=$2 ;;
    *) echo "unknown argument $1" >&2; exit 2 ;;
  esac
  shift 2
done

target=target/compare-calibration
python=$target/venv/bin/python
if [ ! -e "$target/complete" ]; then
  echo "installing economize into $target/venv" >&2
  python3 -m venv "$target/venv"
  "$python" -m pip install --quiet --disable-pip-version-check economize==0.3.2 torch==2.11.0 numpy==2.4.6
  touch "$target/complete"
fi
if [ -z "$calm" ]; then
  cargo build --quiet --release -p calm-cli --no-default-features --features cpu --target-dir target/cpu-only
  calm=target/cpu-only/release/calm
fi
"$python" benches/compare/calibration.py "$calm" "$target/tables"
