//! p-values computed by others: `tests/reference/README.md` says how.

use calm_calibrate::p_value::{bentkus, binomial, hoeffding, hoeffding_bentkus, hoeffding_kl};
use calm_calibrate::{LogP, LossKind, LossSum, PValue, Tolerance};
use statrs::distribution::{Binomial, DiscreteCDF};

use crate::{binary, tolerance, unit};

const PVALUE_REFERENCE: &str = include_str!("../reference/pvalue_reference.csv");
const LARGE_SAMPLES: &str = include_str!("../reference/large_samples.csv");

/// A relative error of log p. Below 1e-25 it is the rounding of a mean equal to delta, and p is 1 to the last digit.
fn close(log_p: LogP, expected: f64, relative: f64) -> bool {
    (log_p.ln() - expected).abs() <= relative * expected.abs() + 1e-25
}

/// All five p-values of a row against its `log_p_*` columns.
fn check_row(row: &csv::StringRecord, header: &csv::StringRecord, sum: f64, delta: Tolerance, relative: f64) {
    let text = |name: &str| &row[header.iter().position(|column| column == name).unwrap()];
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
        assert!(close(log_p, expected, relative), "{name}: {} instead of {expected} in {row:?}", log_p.ln());
    }
}

fn parse_fraction(text: &str) -> f64 {
    let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
    numerator.parse::<f64>().unwrap() / denominator.parse::<f64>().unwrap()
}

#[test]
fn pvalue_reference() {
    let mut reader = csv::Reader::from_reader(PVALUE_REFERENCE.as_bytes());
    let header = reader.headers().unwrap().clone();
    let (mut checked, mut refused) = (0, 0);
    for row in reader.records() {
        let row = row.unwrap();
        assert_eq!((&header[2], &header[4]), ("sum_losses", "alpha"));
        match Tolerance::new(row[4].parse().unwrap()) {
            Ok(delta) => {
                check_row(&row, &header, parse_fraction(&row[2]), delta, 1e-9);
                checked += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert_eq!((checked, refused), (32, 3), "rows with alpha 0 or 1 are refused, all others are checked");
}

#[test]
fn large_samples() {
    let mut reader = csv::Reader::from_reader(LARGE_SAMPLES.as_bytes());
    let header = reader.headers().unwrap().clone();
    let mut checked = 0;
    for row in reader.records() {
        let row = row.unwrap();
        assert_eq!((&header[1], &header[2]), ("sum_losses", "delta"));
        check_row(&row, &header, row[1].parse().unwrap(), row[2].parse().unwrap(), 1e-11);
        checked += 1;
    }
    assert_eq!(checked, 224);
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

/// The largest mean loss that is still rejected at 0.05, rounded to thousandths; `None` if not even 0 is.
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
        let certifies = |n: usize| p_value.of_sum(binary(0, n), tolerance(delta)).unwrap().p() <= 0.05;
        assert!(certifies(expected) && !certifies(expected - 1), "{p_value} at delta {delta}");
    };
    for (delta, hoeffding_bentkus, hoeffding) in
        [(0.01, 299, 14_979), (0.02, 149, 3745), (0.05, 59, 600), (0.1, 29, 150), (0.2, 14, 38)]
    {
        check(PValue::HoeffdingBentkus, delta, hoeffding_bentkus);
        check(PValue::Binomial, delta, hoeffding_bentkus);
        check(PValue::Hoeffding, delta, hoeffding);
    }
}

/// 100 * (7 / 100) is more than 7 as doubles, and would be rounded up to 8.
#[test]
fn sums_are_not_rounded_through_the_mean() {
    let losses: Vec<f64> = (0..100).map(|i| if i < 7 { 1.0 } else { 0.0 }).collect();
    let expected = 1.0 + Binomial::new(0.1, 100).unwrap().cdf(7).ln();
    for kind in [LossKind::Binary, LossKind::UnitInterval] {
        let losses = LossSum::of(&losses, kind).unwrap();
        assert!(close(bentkus(losses, tolerance(0.1)), expected, 1e-11));
    }
}

/// A million losses of one tenth, which a plain sum makes more than 100,000.
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
                // Its own error reaches 1e-10 at 1e5 examples.
                assert!(
                    (p / expected - 1.0).abs() < 1e-9,
                    "{failures} of {examples} at {delta}: {p}, {expected}"
                );
            }
        }
    }
}
