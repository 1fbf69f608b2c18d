#!/usr/bin/env python3
"""Writes large_samples.csv, differences.csv and asymptotic.csv; with --check recomputes the other files. See README.md.

The formulas are those of the papers, in 60 digits and by another route than the crate's: log-gamma differences for the
probabilities, plain logarithms for the divergence, the complementary error function for the normal distribution.
"""
import csv
import math
import pathlib
import sys
from fractions import Fraction

from mpmath import erfc, exp, log, log1p, loggamma, mp, mpf, nstr, sqrt

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


def rebuild(row):
    """The losses of a row of pvalue_reference.csv."""
    n, total = int(row["n"]), Fraction(row["sum_losses"])
    if row["seq"] == "const":
        return [total / n] * n
    if row["seq"] == "alt0_2r":
        return [Fraction(0), 2 * total / n] * (n // 2)
    if row["seq"] == "spread":
        return [math.floor(i * total / n) - math.floor((i - 1) * total / n) for i in range(1, n + 1)]
    ones = int(total)
    return [1] * ones + [0] * (n - ones) if row["seq"] == "ones_first" else [0] * (n - ones) + [1] * ones


def bets(losses, level):
    """The predictable plug-in, word for word: with the mean and the variance after each loss."""
    n, total, squares, variance = len(losses), mpf(0), mpf(0), mpf(1) / 4
    for i, loss in enumerate(losses, 1):
        yield min(mpf(1), sqrt(2 * log(1 / level) / (n * variance)))
        total += loss
        squares += (loss - (mpf(1) / 2 + total) / (1 + i)) ** 2
        variance = (mpf(1) / 4 + squares) / (1 + i)


def capitals(losses, bets_made, delta):
    """The capital after each loss; mpf has no smallest number, so there is no need of logarithms."""
    capital = mpf(1)
    for loss, bet in zip(losses, bets_made):
        capital *= 1 - bet * (loss - delta)
        yield capital


def to_mpf(losses):
    known = {loss: exact(loss) for loss in set(losses)}
    return [known[loss] for loss in losses]


class Worst:
    """The largest relative difference between a column and its recomputation."""

    def __init__(self):
        self.difference = 0

    def compare(self, value, expected):
        expected = mpf(expected)
        difference = abs(value - expected)
        self.difference = max(self.difference, difference / abs(expected) if expected else difference)

    def report(self, name, accepted):
        print(f"{name}: largest relative difference {nstr(self.difference, 3)}")
        if self.difference > accepted:
            sys.exit(f"{name} does not agree")


def check_p_values():
    sums, betting = Worst(), Worst()
    for row in csv.DictReader(open(HERE / "pvalue_reference.csv")):
        delta = Fraction(row["alpha_exact"])
        if not 0 < delta < 1:
            continue
        values = log_p(int(row["n"]), Fraction(row["sum_losses"]), delta)
        for column in COLUMNS:
            sums.compare(values[column], row["log_p_" + column])
        losses, level = to_mpf(rebuild(row)), mpf(row["wsr_level"])
        largest = mpf(1)
        for capital in capitals(losses, bets(losses, level), exact(delta)):
            largest = max(largest, capital)
        betting.compare(log(largest), row["log_wsr_maxK"])
        betting.compare(log(capital), row["log_wsr_Kn"])
        betting.compare(1 / largest, row["p_wsr_max"])
    sums.report("pvalue_reference.csv", mpf(10) ** -18)
    betting.report("pvalue_reference.csv, betting", mpf(10) ** -18)


def check_betting():
    p_values, bounds = Worst(), Worst()
    for row in csv.DictReader(open(HERE / "wsr_reference.csv")):
        losses = [mpf(loss) for loss in row["losses"].split(";")]
        level, made = mpf(row["level"]), list(bets(losses, mpf(row["level"])))
        path = list(capitals(losses, made, mpf(row["alpha"])))
        largest = max(path + [mpf(1)])
        values = [log(path[0]), log(path[4]), log(path[-1]), log(largest), 1 / largest, min(1, 1 / path[-1])]
        for value, column in zip(values, ["log_K1", "log_K5", "log_Kn", "log_maxK", "p_max", "p_final"]):
            p_values.compare(value, row[column])
        low, high = mpf(0), mpf(1)
        for _ in range(100):
            middle = (low + high) / 2
            if max(capitals(losses, made, middle)) >= 1 / level:
                high = middle
            else:
                low = middle
        bounds.compare(high, row["ucb"])
    p_values.report("wsr_reference.csv", mpf(10) ** -18)
    bounds.report("wsr_reference.csv, bounds", mpf(10) ** -18)


def check_bounds():
    """A bound is where p falls to eps: just below it p is larger, just above it is not."""
    columns = {"hoeffding": "hoeff", "hoeffding_kl": "hoeff_kl", "bentkus": "bentkus", "hb": "hb"}
    columns = {name + "_ucb": column for name, column in columns.items()} | {"clopper_pearson_ucb_ceil": "binom"}
    for row in csv.DictReader(open(HERE / "ucb_reference.csv")):
        n, total, aim = int(row["n"]), Fraction(row["sum_losses"]), log(mpf(row["eps"]))
        for name, column in columns.items():
            bound, digit = Fraction(row[name]), Fraction(1, 10**14)
            below, above = log_p(n, total, bound * (1 - digit)), bound * (1 + digit)
            falls_here = below[column] > aim and (above >= 1 or log_p(n, total, above)[column] <= aim)
            if not falls_here:
                sys.exit(f"ucb_reference.csv: {name} is not {row[name]} in {row}")
    print("ucb_reference.csv: all bounds are where p falls to eps")


def check():
    check_bounds()
    check_betting()
    check_p_values()


def generate_sums(name, least, examples, deltas, sums):
    """Sums on [least, 1]; `sums(n, delta)` are Fractions that are doubles, delta the decimal."""
    columns = [column for column in COLUMNS if least == 0 or column != "binom"]
    with open(HERE / name, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["n", "sum_losses", "delta"] + ["log_p_" + c for c in columns])
        for n in examples:
            for delta in deltas:
                for total in sums(n, Fraction(delta)):
                    width = 1 - least
                    values = log_p(n, (total - least * n) / width, (Fraction(float(delta)) - least) / width)
                    writer.writerow([n, repr(float(total)), delta] + [nstr(values[c], 20) for c in columns])


def large_sums(n, delta):
    for ratio in ["0", "1/2", "9/10", "99/100", "9999/10000", "1", "1001/1000", "11/10"]:
        yield min(Fraction(n), Fraction(float(n * delta * Fraction(ratio))))


def difference_sums(n, delta):
    for mean in ["-1", "-3/4", "-1/8", "0", "1/128", "3/32", "1/2"]:
        yield Fraction(mean) * n
    # Just above a whole number of losses of 1, which must be rounded up.
    yield min(Fraction(n), Fraction(n % 2) + Fraction(1, 2**30))


def generate_asymptotic():
    with open(HERE / "asymptotic.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["losses", "delta", "z", "log_p"])
        for losses in [
            "0:1;0.125:1",
            "0:18;0.5:2",
            "0:95;1:5",
            "0:50;1:50",
            "-0.5:30;0:40;0.25:30",
            "-1:3;1:3",
            "0.03125:500;0.0625:500",
            "0:9000;0.25:1000",
            "0.0625:5000;0.09375:5000",
            "0:99000;1:1000",
            "0:1;0.5:99999",
        ]:
            counts = [(Fraction(value), int(count)) for value, count in (p.split(":") for p in losses.split(";"))]
            n = sum(count for _, count in counts)
            mean = sum(value * count for value, count in counts) / n
            variance = sum((value - mean) ** 2 * count for value, count in counts) / (n - 1)
            for delta in ["0.001", "0.02", "0.05", "0.1", "0.3", "0.5", "0.9"]:
                z = exact(mean - Fraction(float(delta))) / sqrt(exact(variance / n))
                tail = erfc(abs(z) / sqrt(mpf(2))) / 2
                log_p_value = log(tail) if z < 0 else log1p(-tail)
                writer.writerow([losses, delta, nstr(z, 6), nstr(log_p_value, 20)])


def generate():
    deltas = ["1e-6", "0.001", "0.02", "0.1", "0.5", "0.9", "0.999"]
    generate_sums("large_samples.csv", 0, [10, 1000, 100_000, 10_000_000], deltas, large_sums)
    generate_sums("differences.csv", -1, [1, 2, 15, 100, 4096, 1_000_000], ["0.001", "0.1", "0.5", "0.9"], difference_sums)
    generate_asymptotic()


check() if "--check" in sys.argv[1:] else generate()
