"""Writes beta_mixture.json: mixtures of two Beta distributions with scipy, as FREE's released code fits them and as
it was meant to. Run with scipy 1.17 and numpy 2.4.

The released code is util/bmm.py of raymin0223/fast_robust_early_exit. What it does is written down here anew.
"""

import json
from pathlib import Path

import numpy as np
from scipy import optimize, special, stats

ZETAS = [0.4, 0.7]
AT = [0.0, 1e-5, 0.05, 0.3, 0.5, 0.77, 0.95, 0.9999, 1.0]


def clip(x):
    return np.clip(np.asarray(x, dtype=np.float64), 1e-4, 1 - 1e-4)


def moments(x, weights):
    mean = np.average(x, weights=weights)
    variance = np.average((x - mean) ** 2, weights=weights)
    return mean, variance


def beta_of(mean, variance):
    alpha = mean * (mean * (1 - mean) / variance - 1)
    return alpha, alpha * (1 - mean) / mean


def published(x, y):
    x = clip(x)
    if len(x) == 0 or len(set(x)) == 1:
        return None, 0.9
    shares = np.maximum(0.2 * np.stack([1 - y, y]), 1e-4)
    shares = shares / (shares.sum(axis=0) + 1e-12)
    return [beta_of(*moments(x, share)) for share in shares], None


def published_threshold(components, zeta):
    grid = np.linspace(0.3, 0.9, 10)
    means = [alpha / (alpha + beta) for alpha, beta in components]
    upper = int(np.argmax(means))
    densities = [stats.beta.pdf(grid, *component) for component in components]
    with np.errstate(invalid="ignore"):
        passing = densities[upper] / (densities[upper] + densities[1 - upper]) > zeta
    return grid[min(max(0, 10 - passing.sum()), 9)]


def log_odds(mixture, x):
    (w0, a0, b0), (w1, a1, b1) = mixture
    return np.log(w1) + stats.beta.logpdf(x, a1, b1) - np.log(w0) - stats.beta.logpdf(x, a0, b0)


def intended(x, y):
    x = clip(x)

    def maximise(responsible):
        parts = [1 - responsible, responsible]
        fitted = []
        for part in parts:
            mean, variance = moments(x, part)
            fitted.append((part.mean(), *beta_of(mean, max(variance, 1e-6))))
        return fitted

    mixture = maximise(y.astype(np.float64))
    for _ in range(20000):
        next = maximise(0.8 * special.expit(log_odds(mixture, x)) + 0.2 * y)
        done = np.allclose(np.array(next), np.array(mixture), rtol=1e-13, atol=0)
        mixture = next
        if done:
            break
    return mixture


def intended_threshold(mixture, zeta):
    exceeds = lambda x: special.expit(log_odds(mixture, x)) > zeta
    grid = np.linspace(1e-4, 1 - 1e-4, 200001)
    found = exceeds(grid)
    if found[0]:
        return 0.0
    if not found.any():
        return 1.0
    first = int(np.argmax(found))
    target = special.logit(zeta)
    return optimize.brentq(lambda x: log_odds(mixture, x) - target, grid[first - 1], grid[first], xtol=1e-14)


random = np.random.default_rng(11)
cases = []


def sample(count, share, agreeing, disagreeing):
    y = (random.uniform(size=count) < share).astype(int)
    x = np.where(y == 1, random.beta(*agreeing, count), random.beta(*disagreeing, count))
    return x, y


def add(name, x, y, both=True):
    x, y = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=int)
    case = {"name": name, "x": [float(v) for v in x], "y": [int(v) for v in y], "at": AT, "zetas": ZETAS}
    components, threshold = published(x, y)
    case["published"] = components
    case["published_thresholds"] = [
        threshold if components is None else float(published_threshold(components, zeta)) for zeta in ZETAS
    ]
    if both:
        mixture = intended(x, y)
        case["intended"] = mixture
        case["posteriors"] = [float(special.expit(log_odds(mixture, v))) for v in clip(AT)]
        case["intended_thresholds"] = [float(intended_threshold(mixture, zeta)) for zeta in ZETAS]
    cases.append(case)


add("sure and unsure", *sample(400, 0.8, (8, 0.6), (1.2, 1.5)))
add("close to each other", *sample(300, 0.6, (3, 1), (2, 2)))
add("most disagree", *sample(400, 0.1, (6, 2), (1, 4)))
add("labels the wrong way round", *sample(300, 0.5, (1, 5), (5, 1)))
add("at the ends", *(np.array([0, 0, 0, 1, 1, 1, 0, 1, 0.5, 0.7] * 8), np.array([0, 0, 1, 1, 1, 1, 0, 1, 0, 1] * 8)))
add("agreeing at both ends", *sample(300, 0.5, (0.4, 0.4), (9, 9)))
add("agreeing in the middle", *sample(300, 0.5, (9, 9), (0.4, 0.4)))
# Densities of both components are 0 at all of the ten thresholds, or at some.
x, y = sample(60, 0.5, (9, 9), (9, 9))
add("narrow", 0.61 + 1e-4 * x, y, both=False)
add("narrow at 0.5", 0.5 + 0.004 * x, y, both=False)
x, y = sample(50, 1.0, (3, 1), (1, 1))
add("all agree", x, y, both=False)
add("none agrees", x, 1 - y, both=False)
add("one confidence", [0.625] * 9, [0, 1, 1, 0, 1, 1, 1, 0, 1], both=False)
add("one of each", [0.25, 0.75], [0, 1], both=False)
add("one token", [0.25], [1], both=False)
add("none", [], [], both=False)
Path(__file__).with_suffix(".json").write_text(json.dumps(cases) + "\n")
for case in cases:
    print(case["name"], case["published_thresholds"], case.get("intended_thresholds"), case.get("intended"))
