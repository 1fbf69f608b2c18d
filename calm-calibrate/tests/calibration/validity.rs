//! Tests super-uniformity by exact enumeration: with an expected loss of exactly delta, P(p <= epsilon) <=
//! epsilon.

use calm_calibrate::{ErrorProbability, LossKind, LossSum, PValue};
use statrs::distribution::{Binomial, Discrete};

use crate::{binary, level, of_sums, tolerance, unit};

const SAMPLE_SIZES: [usize; 9] = [1, 2, 5, 12, 20, 60, 100, 333, 1000];
const EPSILONS: [f64; 4] = [0.2, 0.1, 0.05, 0.01];

/// Computes P(p <= epsilon).
///
/// `losses(k)` has the probability of k successes in n trials of probability `probability`.
fn size(
    p_value: PValue,
    (n, probability): (usize, f64),
    delta: f64,
    epsilon: f64,
    losses: impl Fn(usize) -> LossSum,
) -> f64 {
    let (epsilon, delta) = (ErrorProbability::new(epsilon).unwrap(), tolerance(delta));
    let distribution = Binomial::new(probability, n as u64).unwrap();
    (0..=n)
        .filter(|&k| p_value.of_sum(losses(k), delta).unwrap().rejected_at(epsilon))
        .map(|k| distribution.pmf(k as u64))
        .sum()
}

#[test]
fn bernoulli_losses() {
    for n in SAMPLE_SIZES {
        for delta in [0.01, 0.02, 0.1, 0.25, 0.5, 0.9] {
            for epsilon in EPSILONS {
                for p_value in of_sums() {
                    let size = size(p_value, (n, delta), delta, epsilon, |k| binary(k, n));
                    assert!(
                        size <= epsilon * (1.0 + 1e-12),
                        "{p_value}, n {n}, delta {delta}: {size} > {epsilon}"
                    );
                }
            }
        }
    }
}

/// Losses are 0 or `value`, and their sums are fractions.
///
/// Hoeffding and Bentkus are not tight here, so this does not replace the reference values.
#[test]
fn two_point_losses() {
    for n in SAMPLE_SIZES {
        for (delta, value) in [(0.02, 0.3), (0.1, 0.25), (0.1, 0.7), (0.25, 0.5), (0.5, 0.9)] {
            for epsilon in EPSILONS {
                for p_value in of_sums().filter(|&p_value| p_value != PValue::Binomial) {
                    let losses = |k| unit(k as f64 * value, n);
                    let size = size(p_value, (n, delta / value), delta, epsilon, losses);
                    assert!(
                        size <= epsilon * (1.0 + 1e-12),
                        "{p_value}, n {n}, delta {delta}: {size} > {epsilon}"
                    );
                }
            }
        }
    }
}

/// Enumerates differences of -1, 0 and 1 whose mean is delta: all pairs of counts with their probabilities.
#[test]
fn three_point_differences() {
    for n in [1_usize, 2, 5, 12, 40] {
        for (delta, zero) in [(0.02, 0.9), (0.1, 0.0), (0.1, 0.6), (0.5, 0.2), (0.5, 0.5)] {
            let worse = 0.5 * (1.0 - zero + delta);
            let changed_counts = Binomial::new(1.0 - zero, n as u64).unwrap();
            for p_value in of_sums().filter(|&p_value| p_value != PValue::Binomial) {
                let mut by_p = Vec::new();
                for changed in 0..=n {
                    // This many of the changed outputs are worse.
                    let worse_counts =
                        Binomial::new((worse / (1.0 - zero)).min(1.0), changed as u64).unwrap();
                    for worse in 0..=changed {
                        let probability = changed_counts.pmf(changed as u64) * worse_counts.pmf(worse as u64);
                        let sum = worse as f64 - (changed - worse) as f64;
                        let losses = LossSum::new(sum, n, LossKind::Difference).unwrap();
                        by_p.push((p_value.of_sum(losses, tolerance(delta)).unwrap(), probability));
                    }
                }
                for epsilon in EPSILONS {
                    let rejected = by_p.iter().filter(|(log_p, _)| log_p.rejected_at(level(epsilon)));
                    let size: f64 = rejected.map(|(_, probability)| probability).sum();
                    assert!(
                        size <= epsilon * (1.0 + 1e-12),
                        "{p_value}, n {n}, delta {delta}: {size} > {epsilon}"
                    );
                }
            }
        }
    }
}

/// The p-values are valid, but not by never rejecting: the test measures how much of 0.05 is used.
#[test]
fn not_vacuous() {
    let check = |p_value: PValue, range: std::ops::RangeInclusive<f64>| {
        for n in [100, 333, 1000] {
            let size = size(p_value, (n, 0.1), 0.1, 0.05, |k| binary(k, n));
            assert!(range.contains(&size), "{p_value}, n {n}: {size}");
        }
    };
    check(PValue::Binomial, 0.02..=0.05);
    check(PValue::HoeffdingBentkus, 0.005..=0.02);
    check(PValue::Bentkus, 0.005..=0.02);
    check(PValue::HoeffdingKl, 0.002..=0.02);
}
