#!/usr/bin/env python3
"""Writes large_samples.csv; with --check recomputes pvalue_reference.csv instead. See README.md.

The formulas are those of the papers, in 60 digits and by another route than the crate's: log-gamma differences for the
probabilities, plain logarithms for the divergence.
"""
import csv
import math
import pathlib
import sys
from fractions import Fraction

from mpmath import exp, log, log1p, loggamma, mp, mpf, nstr

mp.dps = 60
HERE = pathlib.Path(__file__).parent
COLUMNS = ["hoeff", "hoeff_kl", "binom", "bentkus", "hb"]


def exact(x):
    x = Fraction(x)
    return mpf(x.numerator) / mpf(x.denominator)


def log_pmf(k, n, p):
    return loggamma(n + 1) - loggamma(k + 1) - loggamma(n - k + 1) + k * log(p) + (n - k) * log1p(-p)


def log_cdf(k, n, p):
    """Sums away from the larger terms until they no longer count."""
    if k >= n:
        return mpf(0)
    lower = k < n * p
    start = k if lower else k + 1
    first = term = total = exp(log_pmf(start, n, p))
    j = start
    while (j > 0 if lower else j < n) and term > first * mpf(10) ** -45:
        if lower:
            term *= mpf(j) / (n - j + 1) * (1 - p) / p
            j -= 1
        else:
            term *= mpf(n - j) / (j + 1) * p / (1 - p)
            j += 1
        total += term
    return log(total) if lower else log1p(-total)


def log_p(n, total, delta):
    """The logarithms of COLUMNS for losses that sum to `total` (a Fraction)."""
    ceil_sum, n_mp, mean, d = math.ceil(total), mpf(n), exact(total / n), exact(delta)
    hoeff = -2 * n_mp * max(mpf(0), d - mean) ** 2
    if mean >= d:
        kl = mpf(0)
    else:
        kl = -n_mp * ((mean * log(mean / d) if mean else 0) + (1 - mean) * log((1 - mean) / (1 - d)))
    binom = log_cdf(ceil_sum, n, d)
    bentkus = min(mpf(0), 1 + binom)
    return dict(zip(COLUMNS, [hoeff, kl, binom, bentkus, min(kl, bentkus)]))


def check():
    worst = 0
    for row in csv.DictReader(open(HERE / "pvalue_reference.csv")):
        delta = Fraction(row["alpha_exact"])
        if not 0 < delta < 1:
            continue
        values = log_p(int(row["n"]), Fraction(row["sum_losses"]), delta)
        for column in COLUMNS:
            expected = mpf(row["log_p_" + column])
            difference = abs(values[column] - expected)
            worst = max(worst, difference / abs(expected) if expected else difference)
    print("largest relative difference", nstr(worst, 3))
    sys.exit(worst > mpf(10) ** -18)


def generate():
    with open(HERE / "large_samples.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["n", "sum_losses", "delta"] + ["log_p_" + c for c in COLUMNS])
        for n in [10, 1000, 100_000, 10_000_000]:
            for delta in ["1e-6", "0.001", "0.02", "0.1", "0.5", "0.9", "0.999"]:
                for ratio in ["0", "1/2", "9/10", "99/100", "9999/10000", "1", "1001/1000", "11/10"]:
                    total = min(Fraction(n), Fraction(float(n * Fraction(delta) * Fraction(ratio))))
                    values = log_p(n, total, Fraction(float(delta)))
                    writer.writerow([n, repr(float(total)), delta] + [nstr(values[c], 20) for c in COLUMNS])


check() if "--check" in sys.argv[1:] else generate()
