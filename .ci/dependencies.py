"""Checks the crates' dependencies against ARCHITECTURE.md: which crate may use which others.

It also checks who may use libtorch and plotters, and that the crates which have the feature `libtorch` can do
without it.
"""

import json
import subprocess
import sys

LIBTORCH = {"tch", "torch-sys"}
# What every crate of the workspace may use.
BASE = {"calm-names", "calm-files"}
ALLOWED = {
    "calm-names": set(),
    "calm-files": set(),
    "calm-parquet": set(),
    "calm-gguf": set(),
    "calm-core": set(),
    "calm-checkpoint": {"calm-core", "calm-gguf"},
    "calm-cpu": {"calm-core", "calm-checkpoint", "calm-gguf"},
    "calm-model": {"calm-core", "calm-checkpoint", "calm-gguf"} | LIBTORCH,
    "calm-engine": {"calm-core", "calm-checkpoint", "calm-cpu", "calm-model"},
    "calm-fit": {"calm-core", "calm-checkpoint", "calm-engine", "calm-plots"},
    "calm-calibrate": {"calm-parquet"},
    "calm-metrics": set(),
    "calm-data": {"calm-parquet"},
    "calm-plots": {"plotters"},
    "calm-train": {
        "calm-core", "calm-checkpoint", "calm-model", "calm-engine", "calm-fit", "calm-data", "calm-metrics",
        "calm-plots",
    } | LIBTORCH,
}
# These may use all but what is above them.
ALLOWED["calm-experiments"] = set(ALLOWED) - {"calm-train"} | LIBTORCH
ALLOWED["calm-fuzz"] = {
    "calm-core", "calm-gguf", "calm-checkpoint", "calm-calibrate", "calm-data", "calm-experiments",
}
ALLOWED["calm-cli"] = set(ALLOWED) - {"calm-fuzz"} | LIBTORCH
ALLOWED["measure-entropy"] = set(ALLOWED) - {"calm-fuzz"}

metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--no-deps", "--format-version", "1"]))
failures = []
for package in metadata["packages"]:
    name = package["name"]
    if name not in ALLOWED:
        failures.append(f"{name} has no entry in .ci/dependencies.py")
        continue
    for dependency in package["dependencies"]:
        used = dependency["name"]
        watched = used.startswith("calm-") or used in LIBTORCH | {"plotters"}
        if dependency["kind"] is None and watched and used not in ALLOWED[name] | BASE:
            failures.append(f"{name} may not depend on {used}")
        needs_libtorch = used in LIBTORCH | {"calm-model", "calm-train"}
        if name in ("calm-engine", "calm-fit", "calm-experiments", "calm-cli") and needs_libtorch:
            if dependency["kind"] is None and not dependency["optional"]:
                failures.append(f"{name} has to do without {used} where the feature libtorch is off")
sys.exit("\n".join(failures) or None)
