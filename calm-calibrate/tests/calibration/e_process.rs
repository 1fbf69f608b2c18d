//! Tests of evidence that may be looked at while the data arrive.

use calm_calibrate::{EProcess, Error, LogP, LossKind, SequentialCalibration, log_mean_e_value};

use crate::scenario::{Counts, DELTA, Losses, REPETITIONS, Risks, accepted, draw_table, thresholds};
use crate::{level, tolerance};

/// Enumerates all sequences of 12 binary losses with their probabilities.
fn all_paths(mean: f64) -> impl Iterator<Item = (Vec<f64>, f64)> {
    (0..1_u32 << 12).map(move |path| {
        let losses: Vec<f64> = (0..12).map(|i| f64::from(path >> i & 1)).collect();
        let ones = path.count_ones() as i32;
        (losses, mean.powi(ones) * (1.0 - mean).powi(12 - ones))
    })
}

fn process(losses: &[f64], kind: LossKind, delta: f64, tuned_for: f64) -> EProcess {
    let mut process = EProcess::new(tolerance(delta), kind, level(tuned_for));
    losses.iter().for_each(|&loss| process.push(loss).unwrap());
    process
}

/// If the expected loss is the tolerance the bets are fair, and the expected capital is 1.
///
/// Tuned for 0.95 the bets are below their largest, where they would win most if they saw their own loss.
#[test]
fn the_expected_capital_is_1() {
    for delta in [0.05, 0.1, 0.3, 0.5, 0.8] {
        for tuned_for in [0.95, 0.8, 0.05] {
            let (mut expected, mut above) = (0.0, 0.0);
            for (losses, probability) in all_paths(delta) {
                let process = process(&losses, LossKind::Binary, delta, tuned_for);
                expected += probability * process.log_e_value().exp();
                if process.log_p().rejected_at(level(0.3)) {
                    above += probability;
                }
            }
            assert!((expected - 1.0_f64).abs() < 1e-12, "delta {delta}, tuned for {tuned_for}: {expected}");
            assert!(above <= 0.3 + 1e-12, "delta {delta}, tuned for {tuned_for}: {above}");
        }
    }
}

/// If the expected loss is larger, one can only expect to lose.
#[test]
fn the_expected_capital_shrinks_if_the_loss_is_not_tolerable() {
    for (delta, mean) in [(0.1, 0.15), (0.3, 0.9)] {
        let capital = |losses: &[f64]| process(losses, LossKind::Binary, delta, 0.5).log_e_value().exp();
        let expected: f64 = all_paths(mean).map(|(losses, probability)| probability * capital(&losses)).sum();
        assert!(expected < 1.0, "{expected}");
    }
}

/// The differences are -1 (with probability 0.45) and 1.
#[test]
fn the_expected_capital_is_1_for_differences() {
    let delta = 0.1;
    for tuned_for in [0.95, 0.05] {
        let capital = |(losses, probability): (Vec<f64>, f64)| {
            let differences: Vec<f64> = losses.iter().map(|loss| 2.0 * loss - 1.0).collect();
            probability * process(&differences, LossKind::Difference, delta, tuned_for).log_e_value().exp()
        };
        let expected: f64 = all_paths(0.55).map(capital).sum();
        assert!((expected - 1.0).abs() < 1e-12, "tuned for {tuned_for}: {expected}");
    }
}

/// Computes equation 26 of Waudby-Smith and Ramdas by hand.
///
/// The variance before any loss is 1/4, after a first loss of 0 it is (1/4 + 1/16) / 2.
#[test]
fn the_first_bets() {
    let aim = -2.0 * f64::ln(0.95);
    let first = (aim / (0.25 * 2.0_f64.ln())).sqrt().min(1.0);
    let second = (aim / (0.156_25 * 2.0 * 3.0_f64.ln())).sqrt().min(1.0);
    assert!(first < 1.0 && second < 1.0);
    let expected = (1.0 + first * 0.1).ln() + (1.0 - second * 0.9).ln();
    let found = process(&[0.0, 1.0], LossKind::Binary, 0.1, 0.95).log_e_value();
    assert!((found - expected).abs() < 1e-14, "{found} instead of {expected}");
}

#[test]
fn a_refused_loss_does_not_count() {
    let mut with = process(&[0.0, 0.5], LossKind::UnitInterval, 0.1, 0.05);
    let error = with.push(f64::NAN).unwrap_err().to_string();
    assert!(error.contains("the loss of example 2 is NaN"), "{error}");
    with.push(0.25).unwrap();
    let without = process(&[0.0, 0.5, 0.25], LossKind::UnitInterval, 0.1, 0.05);
    assert_eq!((with.examples(), with.log_e_value()), (without.examples(), without.log_e_value()));
}

#[test]
fn means_of_e_values() {
    let check = |log_e_values: &[f64], expected: f64| {
        let found = log_mean_e_value(log_e_values);
        assert!(found == expected || (found - expected).abs() < 1e-12, "{log_e_values:?}: {found}");
    };
    check(&[], f64::NEG_INFINITY);
    check(&[f64::NEG_INFINITY; 2], f64::NEG_INFINITY);
    check(&[0.0, f64::NEG_INFINITY], -(2.0_f64.ln()));
    check(&[1e6, 1e6], 1e6);
    check(&[2.0_f64.ln(), 4.0_f64.ln()], 3.0_f64.ln());
    assert_eq!(LogP::from_ln_e_value(3.0).unwrap().ln(), -3.0);
    assert_eq!(LogP::from_ln_e_value(-3.0).unwrap().p(), 1.0);
    assert!(LogP::from_ln_e_value(f64::NAN).is_err());
}

fn sequential(losses: Losses) -> SequentialCalibration {
    SequentialCalibration::new(&thresholds(), tolerance(DELTA), level(0.05), losses.kind()).unwrap()
}

/// The test looks after every example and would stop at the first false certification.
#[test]
fn peeking_keeps_the_guarantee() {
    let check = |losses: Losses, risks: Risks, examples: usize, min_certified: f64| {
        let mut counts = Counts::default();
        for seed in 0..REPETITIONS {
            let table = draw_table(losses, risks, examples, seed);
            let mut calibration = sequential(losses);
            let mut most = 0;
            for example in 0..examples {
                let losses: Vec<f64> = table.iter().map(|row| row[example]).collect();
                calibration.push(&losses).unwrap();
                let certified = calibration.certified().len();
                assert!(certified >= most, "what was certified stays so");
                most = certified;
            }
            assert_eq!(calibration.threshold(), most.checked_sub(1).map_or(1.0, |last| thresholds()[last]));
            counts.add(risks.means()[..most].iter().copied());
        }
        assert!(counts.violations <= accepted(0.05), "{losses:?} {risks:?}: {counts:?}");
        let certified = counts.certified as f64 / REPETITIONS as f64;
        assert!(certified >= min_certified, "{losses:?} {risks:?}: {counts:?}");
    };
    check(Losses::Bernoulli, Risks::Cliff, 200, 0.9);
    check(Losses::Beta, Risks::Cliff, 200, 0.9);
    check(Losses::Beta, Risks::Slope, 200, 0.9);
    check(Losses::Uniform, Risks::Bump, 200, 0.5);
    check(Losses::ThreePoint, Risks::Cliff, 200, 0.0);
}

#[test]
fn sequential_calibrations_that_are_refused() {
    let new = |thresholds: &[f64]| {
        SequentialCalibration::new(thresholds, tolerance(0.1), level(0.05), LossKind::UnitInterval)
            .map(|_| ())
    };
    assert_eq!(new(&[1.0, 0.5]), Err(Error::InvalidThreshold { threshold_index: 0, threshold: 1.0 }));
    assert_eq!(new(&[]), Err(Error::NoThresholds));
    assert!(new(&[0.5, 0.9]).is_err());

    let mut calibration = sequential(Losses::Beta);
    assert!(matches!(calibration.push(&[0.0; 7]), Err(Error::UnequalCounts { expected: 8, found: 7, .. })));
    let mut losses = [0.0; 8];
    losses[3] = 2.0;
    assert!(matches!(calibration.push(&losses), Err(Error::InvalidLossInTable { threshold_index: 3, .. })));
    assert_eq!((calibration.examples(), calibration.threshold()), (0, 1.0));
    for _ in 0..60 {
        calibration.push(&[0.0; 8]).unwrap();
    }
    assert_eq!(calibration.certified(), thresholds());
}
