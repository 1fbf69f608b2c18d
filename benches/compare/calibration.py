"""Runs the calibration of economize and that of calm on the same tables of losses, and prints where they part.

Usage: calibration.py CALM FOLDER, where CALM is the command and FOLDER receives the tables. economize 0.3.2 calls
the tolerated risk epsilon and the probability of failure delta; names here are those of calm, which are the paper's.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from economize.techniques.dynamic_depth.calm import hoeffding_bentkus_pvalue, ltt_threshold

THRESHOLDS = [round(0.05 * step, 2) for step in range(19, 0, -1)]
EXAMPLES = [50, 100, 300, 1000, 2000]
SEEDS = [0, 1, 2]
DELTAS = [0.02, 0.05, 0.1, 0.2, 0.4]
EPSILONS = [0.01, 0.05, 0.1, 0.2]


def binary(random, n, means):
    return (random.uniform(size=(len(means), n)) < means[:, None]).astype(float)


def continuous(random, n, means):
    return random.beta(2 * means[:, None], 2 * (1 - means[:, None]), size=(len(means), n))


def plateaus(random, n, means):
    """The same losses at four thresholds each."""
    return np.repeat(continuous(random, n, means[::4]), 4, axis=0)[: len(means)]


def not_monotone(random, n, means):
    """As large in the middle of the thresholds as below them."""
    means = np.where(np.arange(len(means)) % 6 == 4, means[::-1], means)
    return continuous(random, n, np.clip(means, 1e-3, 0.9))


def tenths(random, n, means):
    """Losses of one decimal, whose sums are often whole numbers, up to rounding."""
    return np.round(continuous(random, n, means), 1)


def above_whole_sums(random, n, means):
    """Each sum is 4e-10 above a whole number."""
    losses = binary(random, n, means)
    for row in losses:
        row[np.flatnonzero(row == 0)[0]] = 4e-10
    return losses


SHAPES = [binary, continuous, plateaus, not_monotone, tenths, above_whole_sums]


def tables():
    for shape in SHAPES:
        for n in EXAMPLES:
            for seed in SEEDS:
                random = np.random.default_rng([SHAPES.index(shape), n, seed])
                largest, power = random.uniform(0.1, 0.6), random.uniform(1, 4)
                means = np.clip(largest * (1 - np.array(THRESHOLDS)) ** power, 1e-3, None)
                yield shape.__name__, n, seed, shape(random, n, means)


def write(path, losses):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["threshold", "example", "loss"])
        for threshold, row in zip(THRESHOLDS, losses):
            writer.writerows([threshold, example, repr(float(loss))] for example, loss in enumerate(row))


def calm(command, path, delta, epsilon):
    arguments = ["--losses", path, "--delta", delta, "--epsilon", epsilon, "--output", "-"]
    procedure = ["--p-value", "hoeffding-bentkus", "--procedure", "fixed-sequence"]
    run = subprocess.run([command, "calibrate", *map(str, arguments), *procedure], capture_output=True, text=True)
    # 3: only the full model holds the guarantee.
    if run.returncode not in (0, 3):
        sys.exit(run.stderr)
    return json.loads(run.stdout)


def main():
    command, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    by_shape, differences, p_values = {}, [], {}
    for shape, n, seed, losses in tables():
        path = folder / f"{shape}-{n}-{seed}.csv"
        write(path, losses)
        for delta in DELTAS:
            for epsilon in EPSILONS:
                ours = calm(command, path, delta, epsilon)
                theirs = ltt_threshold(THRESHOLDS, losses, delta=epsilon, epsilon=delta)
                same = ours["threshold"] == theirs
                counts = by_shape.setdefault(shape, [0, 0, 0])
                counts[0] += same
                counts[1] += 1
                counts[2] += theirs == 1.0
                # The first threshold that one of them certifies and the other does not.
                parted = max(t for t in THRESHOLDS if t < max(ours["threshold"], theirs)) if not same else None
                for index, threshold in enumerate(THRESHOLDS):
                    their_p = hoeffding_bentkus_pvalue(float(losses[index].mean()), n, delta)
                    our_p = ours["p_values"][index]
                    # Below this a double has fewer digits.
                    ratio = our_p / their_p if their_p > 1e-300 else 1.0
                    largest = p_values.get(shape, (1.0, 1.0))
                    p_values[shape] = (min(largest[0], ratio), max(largest[1], ratio))
                    if threshold == parted:
                        row = (shape, n, seed, delta, epsilon, ours["threshold"], theirs, threshold, our_p, their_p)
                        differences.append((*row, float(np.sum(losses[index]))))
    print(f"{'losses':<18}{'runs':>6}{'same':>6}{'full model':>12}  p-values, calm / economize")
    for shape, (same, runs, full) in by_shape.items():
        least, largest = p_values[shape]
        print(f"{shape:<18}{runs:>6}{same:>6}{full:>12}  {least:.10g} to {largest:.10g}")
    if differences:
        print("\nlosses, examples, seed, delta, epsilon: calm, economize; at the threshold where they part the p-values "
              "of calm and economize and the sum of the losses")
    for shape, n, seed, delta, epsilon, ours, theirs, threshold, our_p, their_p, total in differences:
        print(f"{shape}, {n}, {seed}, {delta}, {epsilon}: {ours}, {theirs}; at {threshold} {our_p:.6g} {their_p:.6g}, "
              f"sum {total!r}")


if __name__ == "__main__":
    main()
