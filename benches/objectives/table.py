"""Prints what benches/objectives/run.sh measured as a table: each objective with the last layer's quality and the layers that are
certified at each textual delta. Area is that between the certified layers and full depth over all deltas, divided by their range: the
layers saved on average."""

import csv
import sys
from pathlib import Path


def rows(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table_row(name):
    run = Path("target/objectives") / name / "run"
    full = next(row for row in rows(run / "sweep.csv") if row["policy"] == "full")
    depth = float(full["average_layers"])
    certified = [
        (float(row["delta"]), float(row["test_average_layers"]))
        for row in rows(run / "calibration.csv")
        if row["objective"] == "textual" and row["measure"] == "agreement"
    ]
    curve = [(0.0, depth)] + sorted(certified)
    steps = zip(curve, curve[1:])
    area = sum((b - a) * (depth - (layers + next_layers) / 2) for (a, layers), (b, next_layers) in steps)
    return [name, f"{float(full['bleu']):.1f}", *(f"{layers:.2f}" for _, layers in curve[1:]), f"{area / curve[-1][0]:.2f}"]


names = sys.argv[1:]
deltas = sorted({row["delta"] for row in rows(Path("target/objectives") / names[0] / "run/calibration.csv") if row["objective"] == "textual"}, key=float)
print("|".join(["| objective ", " BLEU ", *(f" {delta} " for delta in deltas), " area |"]))
print("|---" * (len(deltas) + 3) + "|")
for name in names:
    print("| " + " | ".join(table_row(name)) + " |")
