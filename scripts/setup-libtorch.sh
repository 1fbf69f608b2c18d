#!/usr/bin/env bash
# Installs libtorch into .libtorch/ (about 530 MB to download, 1.2 GB on disk), unless it is already there.
#
# The PyPI wheel of torch is used because package mirrors have it. Its libtorch_cpu.so needs two small CUDA
# libraries to load; only libtorch_cuda.so needs cuDNN, cuBLAS and NCCL (2.5 GB), so a CPU machine does
# without them. On a GPU machine, point LIBTORCH at the full installation instead:
#   export LIBTORCH=$(python3 -c 'import torch, os; print(os.path.dirname(torch.__file__))')
set -euo pipefail
cd "$(dirname "$0")/.."

torch_version=2.11.0
cuda_runtime_version=13.0.96
cuda_cupti_version=13.0.85
target=.libtorch

if [ -n "${LIBTORCH:-}" ]; then
  [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] || { echo "LIBTORCH=$LIBTORCH holds no lib/libtorch_cpu.so" >&2; exit 1; }
  echo "libtorch: using LIBTORCH=$LIBTORCH"
  exit 0
fi

installed=$(sed -n "s/^__version__ = '\([0-9.]*\).*/\1/p" "$target/torch/version.py" 2>/dev/null || true)
if [ "$installed" = "$torch_version" ] && [ -e "$target/complete" ]; then
  exit 0
fi

echo "libtorch: installing torch $torch_version into $target/"
rm -rf "$target"
mkdir -p "$target"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --no-compile --target "$target" \
  "torch==$torch_version" \
  "nvidia-cuda-runtime==$cuda_runtime_version" \
  "nvidia-cuda-cupti==$cuda_cupti_version"
touch "$target/complete"
