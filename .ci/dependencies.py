"""Checks the crates' dependencies against ARCHITECTURE.md: which crate may use which others.

It also checks who may use libtorch and plotters, and that the crates which have the feature `libtorch` can do
without it.
"""

import json
import subprocess
import sys

LIBTORCH = {"tch", "torch-sys"}
ALLOWED = {
    "calm-names": set(),
    "calm-files": set(),
    "calm-core": set(),
    "calm-checkpoint": {"calm-core", "calm-files"},
    "calm-cpu": {"calm-core", "calm-checkpoint", "calm-names"},
    "calm-model": {"calm-core", "calm-checkpoint", "calm-files"} | LIBTORCH,
    "calm-calibrate": {"calm-names"},
    "calm-metrics": {"calm-names"},
    "calm-data": {"calm-files", "calm-names"},
    "calm-plots": {"calm-files", "plotters"},
}
ALLOWED["calm-train"] = set(ALLOWED) - {"calm-cpu", "calm-calibrate"} | LIBTORCH
# These two may use all but what is above them.
ALLOWED["calm-experiments"] = set(ALLOWED) - {"calm-train"} | LIBTORCH
ALLOWED["calm-cli"] = set(ALLOWED) | LIBTORCH

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
        if dependency["kind"] is None and watched and used not in ALLOWED[name]:
            failures.append(f"{name} may not depend on {used}")
        if name in ("calm-experiments", "calm-cli") and used in LIBTORCH | {"calm-model", "calm-train"}:
            if dependency["kind"] is None and not dependency["optional"]:
                failures.append(f"{name} has to do without {used} where the feature libtorch is off")
sys.exit("\n".join(failures) or None)
