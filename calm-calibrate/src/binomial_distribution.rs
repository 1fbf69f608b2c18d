//! The binomial distribution in logarithms, for samples of any size.
//!
//! Probabilities are computed by the saddle-point expansion of Loader, "Fast and Accurate Computation of
//! Binomial Probabilities" (2000), tails by summing them from the largest down. Differences of log-gamma
//! values would lose eight digits at 1e6 examples, and the usual route over the incomplete beta function ends
//! at the smallest double.

/// `ln sqrt(2 pi)`.
const HALF_LN_TWO_PI: f64 = 0.918_938_533_204_672_8;

/// Computes `ln P(X = k)` for X binomial with `n` trials of probability `p` in (0, 1).
pub(crate) fn log_pmf(k: usize, n: usize, p: f64) -> f64 {
    let (successes, failures, trials) = (k as f64, (n - k) as f64, n as f64);
    if k == 0 {
        return trials * (-p).ln_1p();
    }
    if k == n {
        return trials * p.ln();
    }
    stirling_error(n) - stirling_error(k) - stirling_error(n - k) - binomial_deviance(successes, trials, p)
        + 0.5 * (trials / (successes * failures)).ln()
        - HALF_LN_TWO_PI
}

/// Computes `ln P(X <= k)` for X binomial with `n` trials of probability `p` in (0, 1).
pub(crate) fn log_cdf(k: usize, n: usize, p: f64) -> f64 {
    if k >= n {
        return 0.0;
    }
    if (k as f64) < n as f64 * p {
        let ratio = |j: usize| j as f64 / (n - j + 1) as f64 * ((1.0 - p) / p);
        log_pmf(k, n, p) + tail((1..=k).rev().map(ratio)).ln_1p()
    } else {
        // Above the mean the logarithm is near 0, and only the other tail keeps its digits.
        let ratio = |j: usize| (n - j + 1) as f64 / j as f64 * (p / (1.0 - p));
        let log_upper = log_pmf(k + 1, n, p) + tail((k + 2..=n).map(ratio)).ln_1p();
        (-log_upper.exp()).ln_1p()
    }
}

/// Computes `n` times the Kullback-Leibler divergence between coins of probability `x / n` and `p`.
///
/// It says how unlikely `x` of `n` is. It is a sum of two deviances, both positive, so that nothing cancels
/// when `x / n` is close to `p`.
pub(crate) fn binomial_deviance(x: f64, n: f64, p: f64) -> f64 {
    deviance(x, n * p) + deviance(n - x, n * (1.0 - p))
}

/// Computes `x ln(x / mean) + mean - x`, Loader's `bd0`.
fn deviance(x: f64, mean: f64) -> f64 {
    if x == 0.0 {
        return mean;
    }
    let difference = x - mean;
    if difference.abs() >= 0.1 * (x + mean) {
        return x * (x / mean).ln() - difference;
    }
    let v = difference / (x + mean);
    let mut sum = difference * v;
    let mut power = 2.0 * x * v;
    let mut odd = 3.0;
    loop {
        power *= v * v;
        let next = sum + power / odd;
        if next == sum {
            return sum;
        }
        sum = next;
        odd += 2.0;
    }
}

/// Computes `r1 + r1 r2 + r1 r2 r3 + ...` for ratios below 1 that descend, as far as a double can tell.
fn tail(ratios: impl Iterator<Item = f64>) -> f64 {
    let (mut term, mut sum) = (1.0, 0.0);
    for ratio in ratios {
        term *= ratio;
        if term < 1e-17 * sum {
            break;
        }
        sum += term;
    }
    sum
}

/// Computes `ln n! - ln(sqrt(2 pi n) (n / e)^n)`, the error of Stirling's formula.
fn stirling_error(n: usize) -> f64 {
    /// The errors for n = 1 to 15, where the series below is not exact; computed with 40 digits.
    const SMALL: [f64; 15] = [
        0.081_061_466_795_327_26,
        0.041_340_695_955_409_3,
        0.027_677_925_684_998_34,
        0.020_790_672_103_765_093,
        0.016_644_691_189_821_193,
        0.013_876_128_823_070_748,
        0.011_896_709_945_891_77,
        0.010_411_265_261_972_096,
        0.009_255_462_182_712_733,
        0.008_330_563_433_362_87,
        0.007_573_675_487_951_841,
        0.006_942_840_107_209_53,
        0.006_408_994_188_004_207,
        0.005_951_370_112_758_847_5,
        0.005_554_733_551_962_801,
    ];
    if n <= SMALL.len() {
        return SMALL[n - 1];
    }
    let n = n as f64;
    let square = n * n;
    (1.0 / 12.0
        - (1.0 / 360.0 - (1.0 / 1260.0 - (1.0 / 1680.0 - 1.0 / 1188.0 / square) / square) / square) / square)
        / n
}
