//! Tests of betting: reference values, exact validity over all paths, very long samples.

use calm_calibrate::{LossKind, PValue, Tolerance};

use crate::reference::{close, for_each_row, parse_fraction};
use crate::{level, tolerance};

const PVALUE_REFERENCE: &str = include_str!("../reference/pvalue_reference.csv");
const WSR_REFERENCE: &str = include_str!("../reference/wsr_reference.csv");

/// Rebuilds the losses of a row of `pvalue_reference.csv`; only "const" and "alt0_2r" have fractional ones.
fn rebuild(sequence: &str, sum: &str, examples: usize) -> Vec<f64> {
    let mean = parse_fraction(sum) / examples as f64;
    let ones = || -> usize { sum.parse().unwrap() };
    let indicator = |is_one: bool| if is_one { 1.0 } else { 0.0 };
    let loss = |i: usize| match sequence {
        "const" => mean,
        "alt0_2r" => mean * (i % 2) as f64 * 2.0,
        "spread" => ((i + 1) * ones() / examples - i * ones() / examples) as f64,
        "ones_first" => indicator(i < ones()),
        "ones_last" => indicator(i >= examples - ones()),
        _ => panic!("unknown sequence {sequence}"),
    };
    (0..examples).map(loss).collect()
}

#[test]
fn pvalue_reference() {
    let (mut checked, mut refused) = (0, 0);
    for_each_row(PVALUE_REFERENCE, |text| {
        let Ok(delta) = Tolerance::new(text("alpha").parse().unwrap()) else {
            refused += 1;
            return;
        };
        let losses = rebuild(&text("seq"), &text("sum_losses"), text("n").parse().unwrap());
        let tuned_for = level(text("wsr_level").parse().unwrap());
        let log_p = PValue::Betting.of_losses(&losses, LossKind::UnitInterval, delta, tuned_for).unwrap();
        let (expected, found, row) = (-text("log_wsr_maxK").parse::<f64>().unwrap(), log_p.ln(), text("id"));
        assert!(close(log_p, expected, 1e-9), "row {row}: {found} instead of {expected}");
        let p: f64 = text("p_wsr_max").parse().unwrap();
        assert!((log_p.p() - p).abs() <= 1e-9 * p, "row {row}: {} instead of {p}", log_p.p());
        checked += 1;
    });
    assert_eq!((checked, refused), (32, 3), "rows with alpha 0 or 1 are refused, all others are checked");
}

#[test]
fn wsr_reference() {
    let mut checked = 0;
    for_each_row(WSR_REFERENCE, |text| {
        let name = text("name");
        let losses: Vec<f64> = text("losses").split(';').map(|loss| loss.parse().unwrap()).collect();
        let kind = if name.starts_with("diff") { LossKind::Difference } else { LossKind::UnitInterval };
        let (delta, tuned_for) = (text("alpha").parse().unwrap(), text("level").parse().unwrap());
        let log_p = PValue::Betting.of_losses(&losses, kind, delta, tuned_for).unwrap();
        assert!(close(log_p, -text("log_maxK").parse::<f64>().unwrap(), 1e-9), "{name} {delta}");
        assert!((log_p.p() - text("p_max").parse::<f64>().unwrap()).abs() < 1e-12, "{name} {delta}");
        let bound = PValue::Betting.upper_bound(&losses, kind, tuned_for).unwrap();
        let expected: f64 = text("ucb").parse().unwrap();
        assert!((bound - expected).abs() < 1e-12, "{name} {tuned_for}: {bound} instead of {expected}");
        checked += 1;
    });
    assert_eq!(checked, 20);
}

/// The values of a loss with their probabilities.
type Distribution<'a> = &'a [(f64, f64)];

/// Computes P(p <= epsilon) as a sum over all sequences of losses.
fn size(distribution: Distribution, examples: usize, epsilon: f64, log_p: impl Fn(&[f64]) -> f64) -> f64 {
    let mut size = 0.0;
    let mut losses = vec![0.0; examples];
    for sequence in 0..distribution.len().pow(examples as u32) {
        let (mut rest, mut probability) = (sequence, 1.0);
        for loss in &mut losses {
            let (value, its_probability) = distribution[rest % distribution.len()];
            (*loss, rest, probability) = (value, rest / distribution.len(), probability * its_probability);
        }
        if log_p(&losses) <= f64::ln(epsilon) {
            size += probability;
        }
    }
    size
}

fn bernoulli(mean: f64) -> [(f64, f64); 2] {
    [(0.0, 1.0 - mean), (1.0, mean)]
}

/// The distribution of -1, 0 and 1 with a given mean.
fn three_point(mean: f64, zero: f64) -> [(f64, f64); 3] {
    let changed = 1.0 - zero;
    [(-1.0, 0.5 * (changed - mean)), (0.0, zero), (1.0, 0.5 * (changed + mean))]
}

/// Enumerates all 4096 sequences of 12 losses whose mean is the tolerance.
///
/// Tuned for a level close to 1 the bets stay below their largest, where a bet that sees its own loss would
/// win most.
#[test]
fn super_uniform_over_all_paths() {
    let check = |delta: f64, tuned_for: f64| {
        for epsilon in [0.8, 0.5, 0.3, 0.2, 0.1, 0.05] {
            let log_p = |losses: &[f64]| {
                let (kind, delta) = (LossKind::Binary, tolerance(delta));
                PValue::Betting.of_losses(losses, kind, delta, level(tuned_for)).unwrap().ln()
            };
            let size = size(&bernoulli(delta), 12, epsilon, log_p);
            assert!(
                size <= epsilon * (1.0 + 1e-12),
                "delta {delta}, tuned for {tuned_for}: {size} > {epsilon}"
            );
        }
    };
    for delta in [0.05, 0.1, 0.3, 0.5, 0.8] {
        for tuned_for in [0.8, 0.5, 0.05] {
            check(delta, tuned_for);
        }
    }
}

#[test]
fn super_uniform_over_all_paths_of_differences() {
    for (delta, zero) in [(0.02, 0.6), (0.1, 0.3), (0.1, 0.8), (0.3, 0.0), (0.5, 0.4)] {
        for tuned_for in [0.8, 0.05] {
            for epsilon in [0.8, 0.5, 0.2, 0.1, 0.05] {
                let log_p = |losses: &[f64]| {
                    let (kind, delta) = (LossKind::Difference, tolerance(delta));
                    PValue::Betting.of_losses(losses, kind, delta, level(tuned_for)).unwrap().ln()
                };
                let size = size(&three_point(delta, zero), 8, epsilon, log_p);
                assert!(
                    size <= epsilon * (1.0 + 1e-12),
                    "delta {delta}, tuned for {tuned_for}: {size} > {epsilon}"
                );
            }
        }
    }
}

/// The bound lies below the mean in at most epsilon of all samples.
///
/// This includes negative means, and a loss of 1 that would cost more than the capital.
#[test]
fn upper_bounds_hold_over_all_paths() {
    let check = |mean: f64, zero: f64, epsilon: f64, examples: usize| {
        // This is a p-value of 0 or 1, for the event that the bound misses the mean.
        let missed = |losses: &[f64]| {
            let bound = PValue::Betting.upper_bound(losses, LossKind::Difference, level(epsilon)).unwrap();
            if bound < mean { f64::NEG_INFINITY } else { 0.0 }
        };
        let size = size(&three_point(mean, zero), examples, epsilon, missed);
        assert!(size <= epsilon * (1.0 + 1e-12), "mean {mean}, zero {zero}: {size} > {epsilon}");
    };
    for epsilon in [0.4, 0.2, 0.1, 0.05] {
        for (mean, zero) in [(-0.5, 0.0), (-0.7, 0.0), (-0.3, 0.2), (0.1, 0.5)] {
            check(mean, zero, epsilon, 6);
        }
    }
    check(-0.5, 0.0, 0.05, 8);
    check(-0.3, 0.0, 0.1, 8);
}

/// Computes the capital, loss by loss, as a sum of logarithms with compensation.
fn ln_largest_capital(losses: &[f64], delta: f64, tuned_for: f64) -> f64 {
    let (mut total, mut squares) = (Compensated::new(0.5), Compensated::new(0.25));
    let (mut ln_capital, mut largest) = (Compensated::new(0.0), 0.0_f64);
    for (i, &loss) in losses.iter().enumerate() {
        let round = (i + 1) as f64;
        let variance = squares.value() / round;
        let bet = (2.0 * (1.0 / tuned_for).ln() / (losses.len() as f64 * variance)).sqrt().min(1.0);
        ln_capital.add((-bet * (loss - delta)).ln_1p());
        largest = largest.max(ln_capital.value());
        total.add(loss);
        squares.add((loss - total.value() / (round + 1.0)).powi(2));
    }
    largest
}

/// A sum by Kahan's method.
struct Compensated {
    sum: f64,
    lost: f64,
}

impl Compensated {
    fn new(sum: f64) -> Self {
        Self { sum, lost: 0.0 }
    }

    fn add(&mut self, term: f64) {
        let term = term - self.lost;
        let sum = self.sum + term;
        self.lost = (sum - self.sum) - term;
        self.sum = sum;
    }

    fn value(&self) -> f64 {
        self.sum
    }
}

/// Gains and losses go beyond the range of a double in both directions.
///
/// So the largest capital is at the start, at the end, or in between.
#[test]
fn capitals_beyond_a_double() {
    let check = |runs: &[(usize, f64)]| {
        let losses: Vec<f64> = runs.iter().flat_map(|&(count, loss)| vec![loss; count]).collect();
        let (kind, delta) = (LossKind::Difference, 0.2);
        let log_p = PValue::Betting.of_losses(&losses, kind, tolerance(delta), level(0.05)).unwrap();
        let expected = -ln_largest_capital(&losses, delta, 0.05);
        assert!(close(log_p, expected, 1e-9), "{runs:?}: {} instead of {expected}", log_p.ln());
        expected
    };
    let (gain, loss) = ((60_000, -0.5), (60_000, 1.0));
    assert!(check(&[gain, loss]) < -1000.0);
    assert!(check(&[gain, loss, gain]) < -1000.0);
    assert!(check(&[gain, loss, gain, gain]) < -1000.0);
    assert_eq!(check(&[loss, loss, gain]), 0.0);
    check(&[loss, gain, gain, gain, gain]);
}

fn check_long(loss: impl Fn(usize) -> f64, delta: f64) {
    let losses: Vec<f64> = (0..10_000_000).map(loss).collect();
    let log_p =
        PValue::Betting.of_losses(&losses, LossKind::UnitInterval, tolerance(delta), level(0.05)).unwrap();
    let expected = -ln_largest_capital(&losses, delta, 0.05);
    assert!(expected < -1000.0);
    assert!(close(log_p, expected, 1e-9), "{} instead of {expected}", log_p.ln());
}

#[test]
fn ten_million_constant_losses() {
    check_long(|_| 0.05, 0.1);
}

#[test]
fn ten_million_alternating_losses() {
    check_long(|i| if i % 2 == 0 { 0.125 } else { 0.0 }, 0.1);
}
