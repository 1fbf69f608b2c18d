"""Writes isotonic.json: isotonic regressions of scikit-learn. Run with scikit-learn 1.9 and numpy 2.4."""

import json
from pathlib import Path

import numpy as np
from sklearn.isotonic import IsotonicRegression

random = np.random.default_rng(7)
cases = []


def add(name, x, y):
    x, y = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32)
    fitted = IsotonicRegression(out_of_bounds="clip").fit(x, y)
    at = np.concatenate([[-1.0, 0.0, 1.0, 2.0], random.uniform(0, 1, 20)]).astype(np.float32)
    cases.append({
        "name": name,
        "x": [float(v) for v in x],
        "y": [float(v) for v in y],
        "at": [float(v) for v in at],
        "expected": [float(v) for v in fitted.predict(at)],
    })


add("one", [0.5], [1])
add("rises already", [0.1, 0.2, 0.7], [0, 0.5, 1])
add("falls", [0.1, 0.2, 0.7], [1, 0.5, 0])
add("equal x", [0.2, 0.2, 0.2, 0.6, 0.6, 0.9], [0, 1, 1, 0, 1, 1])
add("all equal", [0.3, 0.3, 0.3], [0, 1, 1])
for size in (10, 100, 300):
    x = random.uniform(0, 1, size)
    add(f"{size} coins", x, random.uniform(0, 1, size) < x)
    add(f"{size} coins on a grid", np.round(x, 1), random.uniform(0, 1, size) < x * x)
Path(__file__).with_suffix(".json").write_text(json.dumps(cases) + "\n")
