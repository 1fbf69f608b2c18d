//! Compares with p-values computed by other software; `tests/reference/README.md` says how.

use calm_calibrate::p_value::{asymptotic, bentkus, binomial, hoeffding, hoeffding_bentkus, hoeffding_kl};
use calm_calibrate::{LogP, LossKind, LossSum, PValue, Tolerance};
use statrs::distribution::{Binomial, DiscreteCDF};

use crate::{binary, level, tolerance, unit};

const PVALUE_REFERENCE: &str = include_str!("../reference/pvalue_reference.csv");
const LARGE_SAMPLES: &str = include_str!("../reference/large_samples.csv");
const DIFFERENCES: &str = include_str!("../reference/differences.csv");
const ASYMPTOTIC: &str = include_str!("../reference/asymptotic.csv");

/// Passes each record of a csv file, as a function from a column to the text there.
pub(crate) fn for_each_row(csv: &str, mut check: impl FnMut(&dyn Fn(&str) -> String)) {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let header = reader.headers().unwrap().clone();
    for row in reader.records() {
        let row = row.unwrap();
        check(&|name| row[header.iter().position(|column| column == name).unwrap()].to_owned());
    }
}

/// Compares by the relative error of log p.
///
/// Below 1e-25 log p is the rounding of a mean equal to delta, and p is 1 to the last digit.
pub(crate) fn close(log_p: LogP, expected: f64, relative: f64) -> bool {
    (log_p.ln() - expected).abs() <= relative * expected.abs() + 1e-25
}

/// Compares all five p-values of a row with its `log_p_*` columns.
fn check_row(text: &dyn Fn(&str) -> String, sum: f64, delta: Tolerance, relative: f64) {
    let examples = text("n").parse().unwrap();
    let losses = unit(sum, examples);
    let whole = binary(sum.ceil() as usize, examples);
    for (name, log_p) in [
        ("log_p_hoeff", hoeffding(losses, delta)),
        ("log_p_hoeff_kl", hoeffding_kl(losses, delta)),
        ("log_p_binom", binomial(whole, delta).unwrap()),
        ("log_p_bentkus", bentkus(losses, delta)),
        ("log_p_hb", hoeffding_bentkus(losses, delta)),
    ] {
        let expected: f64 = text(name).parse().unwrap();
        let log_p_found = log_p.ln();
        assert!(
            close(log_p, expected, relative),
            "{name}: {log_p_found} instead of {expected}, n {examples}, sum {sum}, delta {delta}"
        );
    }
}

pub(crate) fn parse_fraction(text: &str) -> f64 {
    let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
    numerator.parse::<f64>().unwrap() / denominator.parse::<f64>().unwrap()
}

#[test]
fn pvalue_reference() {
    let (mut checked, mut refused) = (0, 0);
    for_each_row(PVALUE_REFERENCE, |text| match Tolerance::new(text("alpha").parse().unwrap()) {
        Ok(delta) => {
            check_row(text, parse_fraction(&text("sum_losses")), delta, 1e-9);
            checked += 1;
        }
        Err(_) => refused += 1,
    });
    assert_eq!((checked, refused), (32, 3), "rows with alpha 0 or 1 are refused, all others are checked");
}

#[test]
fn large_samples() {
    let mut checked = 0;
    for_each_row(LARGE_SAMPLES, |text| {
        check_row(text, text("sum_losses").parse().unwrap(), text("delta").parse().unwrap(), 1e-11);
        checked += 1;
    });
    assert_eq!(checked, 224);
}

/// Differences in `[-1, 1]` are rescaled: halving the tolerance and the sum rounds them, hence the larger
/// error.
#[test]
fn rescaled_differences() {
    let mut checked = 0;
    for_each_row(DIFFERENCES, |text| {
        let (sum, examples) = (text("sum_losses").parse().unwrap(), text("n").parse().unwrap());
        let losses = LossSum::new(sum, examples, LossKind::Difference).unwrap();
        let delta: Tolerance = text("delta").parse().unwrap();
        for (name, log_p) in [
            ("log_p_hoeff", hoeffding(losses, delta)),
            ("log_p_hoeff_kl", hoeffding_kl(losses, delta)),
            ("log_p_bentkus", bentkus(losses, delta)),
            ("log_p_hb", hoeffding_bentkus(losses, delta)),
        ] {
            let (expected, found) = (text(name).parse().unwrap(), log_p.ln());
            assert!(
                close(log_p, expected, 1e-9),
                "{name}: {found} instead of {expected}, n {examples}, sum {sum}, delta {delta}"
            );
        }
        checked += 1;
    });
    assert_eq!(checked, 192);
}

#[test]
fn asymptotic_far_into_the_tails() {
    let mut checked = 0;
    for_each_row(ASYMPTOTIC, |text| {
        let mut losses: Vec<f64> = Vec::new();
        for part in text("losses").split(';') {
            let (value, count) = part.split_once(':').unwrap();
            losses.extend(vec![value.parse::<f64>().unwrap(); count.parse().unwrap()]);
        }
        let expected: f64 = text("log_p").parse().unwrap();
        let delta: Tolerance = text("delta").parse().unwrap();
        let log_p = asymptotic(&losses, LossKind::Difference, delta).unwrap();
        let (found, name) = (log_p.ln(), text("losses"));
        // Near the middle the rounding of the mean counts, in the tails the rounding of the series.
        let relative = if text("z").parse::<f64>().unwrap() < -15.0 { 1e-12 } else { 1e-9 };
        assert!(close(log_p, expected, relative), "{name}, delta {delta}: {found} instead of {expected}");
        checked += 1;
    });
    assert_eq!(checked, 77);
}

#[test]
fn asymptotic_without_a_standard_deviation() {
    let check = |losses: &[f64], expected: f64| {
        let p = asymptotic(losses, LossKind::UnitInterval, tolerance(0.1)).unwrap().p();
        assert_eq!(p, expected, "{losses:?}");
    };
    check(&[0.0], 1.0);
    check(&[0.05, 0.05, 0.05], 0.0);
    check(&[0.1, 0.1, 0.1], 1.0);
    check(&[0.5; 1000], 1.0);
}

#[test]
fn hoeffding_bentkus_of_the_literature() {
    let check = |examples: usize, delta: f64, sum: f64, expected: f64| {
        let p = hoeffding_bentkus(unit(sum, examples), tolerance(delta)).p();
        assert!((p / expected - 1.0).abs() < 5e-4, "{examples} {delta} {sum}: {p} instead of {expected}");
    };
    check(100, 0.1, 3.0, 0.02130);
    check(100, 0.1, 5.0, 0.1565);
    check(1000, 0.1, 80.0, 0.04787);
    check(1000, 0.02, 10.0, 0.02783);
    check(1000, 0.25, 230.0, 0.2073);
    check(100, 0.1, 2.0, 0.00528674);
    check(500, 0.1, 35.0, 0.03348784);
    check(2000, 0.1, 160.0, 0.00334381);
    check(100, 0.1, 4.2, 0.09637616);
    check(20, 0.3, 1.0, 0.01812448);
    check(1_000_000, 0.1, 99_500.0, 0.13014491);
}

/// Finds the largest mean loss that is still rejected at 0.05, rounded to thousandths.
///
/// It is `None` if even 0 is not rejected.
#[test]
fn largest_rejected_mean() {
    let largest = |p_value: PValue, examples: usize, delta: f64| {
        let rejected = |mean: f64| {
            let losses = unit(mean * examples as f64, examples);
            p_value.of_sum(losses, tolerance(delta)).unwrap().p() <= 0.05
        };
        let (mut low, mut high) = (0.0, delta);
        for _ in 0..50 {
            let middle = 0.5 * (low + high);
            if rejected(middle) { low = middle } else { high = middle }
        }
        rejected(0.0).then(|| (1000.0 * low).round() as usize)
    };
    let check = |examples: usize, expected: [(Option<usize>, Option<usize>); 4]| {
        for (delta, expected) in [0.02, 0.05, 0.1, 0.25].into_iter().zip(expected) {
            let simple = largest(PValue::Hoeffding, examples, delta);
            let sharper = largest(PValue::HoeffdingBentkus, examples, delta);
            assert_eq!((simple, sharper), expected, "{examples} examples, delta {delta}");
        }
    };
    check(100, [(None, None), (None, Some(7)), (None, Some(36)), (Some(128), Some(150))]);
    check(500, [(None, Some(7)), (None, Some(28)), (Some(45), Some(70)), (Some(195), Some(208))]);
    check(1000, [(None, Some(10)), (Some(11), Some(35)), (Some(61), Some(80)), (Some(211), Some(221))]);
    check(5000, [(Some(3), Some(16)), (Some(33), Some(43)), (Some(83), Some(91)), (Some(233), Some(237))]);
    check(10_000, [(Some(8), Some(17)), (Some(38), Some(45)), (Some(88), Some(94)), (Some(238), Some(241))]);
}

#[test]
fn first_sample_size_that_certifies_without_any_loss() {
    let check = |p_value: PValue, delta: f64, expected: usize| {
        let certifies = |n: usize| {
            let log_p = p_value.of_losses(&vec![0.0; n], LossKind::Binary, tolerance(delta), level(0.05));
            log_p.unwrap().p() <= 0.05
        };
        assert!(certifies(expected) && !certifies(expected - 1), "{p_value} at delta {delta}");
    };
    for (delta, hoeffding_bentkus, betting, hoeffding) in [
        (0.01, 299, 308, 14_979),
        (0.02, 149, 154, 3745),
        (0.05, 59, 63, 600),
        (0.1, 29, 32, 150),
        (0.2, 14, 17, 38),
    ] {
        check(PValue::HoeffdingBentkus, delta, hoeffding_bentkus);
        check(PValue::Binomial, delta, hoeffding_bentkus);
        check(PValue::Betting, delta, betting);
        check(PValue::Hoeffding, delta, hoeffding);
    }
}

/// As doubles, 100 * (7 / 100) is more than 7, and would be rounded up to 8.
#[test]
fn sums_are_not_rounded_through_the_mean() {
    let losses: Vec<f64> = (0..100).map(|i| if i < 7 { 1.0 } else { 0.0 }).collect();
    let expected = 1.0 + Binomial::new(0.1, 100).unwrap().cdf(7).ln();
    for kind in [LossKind::Binary, LossKind::UnitInterval] {
        let losses = LossSum::of(&losses, kind).unwrap();
        assert!(close(bentkus(losses, tolerance(0.1)), expected, 1e-11));
    }
}

/// A sum just above a whole number is rounded up, even if the rest is lost when the differences are rescaled.
#[test]
fn a_little_above_a_whole_number() {
    let of = |sum: f64| {
        let losses = LossSum::new(sum, 100, LossKind::Difference).unwrap();
        bentkus(losses, tolerance(0.2))
    };
    assert_eq!(of(1e-20), of(2.0));
    assert_eq!(of(0.0), of(-1e-20));
    assert!(of(0.0) < of(2.0));
}

/// A plain sum makes a million losses of one tenth more than 100,000.
#[test]
fn sums_do_not_drift() {
    let losses = vec![0.1; 1_000_000];
    assert!(losses.iter().sum::<f64>() > 100_000.0);
    assert_eq!(LossSum::of(&losses, LossKind::UnitInterval).unwrap().sum(), 100_000.0);
}

#[test]
fn binomial_agrees_with_statrs() {
    for examples in [1, 2, 7, 15, 16, 17, 40, 333, 2500, 100_000_usize] {
        for delta in [1e-4, 0.03, 0.1, 0.37, 0.5, 0.8, 0.99] {
            let distribution = Binomial::new(delta, examples as u64).unwrap();
            let mean = examples as f64 * delta;
            for deviations in [-6.0, -3.0, -1.0, -0.1, 0.0, 0.1, 1.0, 3.0] {
                let failures = (mean + deviations * (mean * (1.0 - delta)).sqrt()).max(0.0) as usize;
                let failures = failures.min(examples);
                let p = binomial(binary(failures, examples), tolerance(delta)).unwrap().p();
                let expected = distribution.cdf(failures as u64);
                // The error of the reference itself reaches 1e-10 at 1e5 examples.
                assert!(
                    (p / expected - 1.0).abs() < 1e-9,
                    "{failures} of {examples} at {delta}: {p}, {expected}"
                );
            }
        }
    }
}
