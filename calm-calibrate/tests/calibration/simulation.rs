//! Tests of the guarantee in repeated calibrations with a known risk, for each p-value with each procedure.

use calm_calibrate::{
    CalibrationOptions, Graph, LossTable, PValue, Procedure, Split, accepted_violations, calibrate,
};
use statrs::distribution::{Binomial, DiscreteCDF};

use crate::scenario::{Losses, REPETITIONS, Risks, accepted, check_all, options, repeat, thresholds};
use crate::{level, tolerance};

#[test]
fn pass_rule() {
    for (repetitions, epsilon, expected) in
        [(500, 0.05, 51), (1000, 0.05, 86), (2000, 0.05, 149), (5000, 0.05, 326), (2000, 0.1, 267)]
    {
        assert_eq!(accepted_violations(repetitions, level(epsilon), level(1e-6)), expected);
    }
    assert_eq!(accepted(0.05), 149);
}

#[test]
fn pass_rule_agrees_with_statrs() {
    for repetitions in [1, 10, 137, 1000] {
        for epsilon in [0.01, 0.05, 0.3, 0.9] {
            for surprise in [1e-9, 1e-6, 0.0123, 0.34] {
                let count = Binomial::new(epsilon, repetitions).unwrap();
                let expected = (0..=repetitions).find(|&v| count.sf(v) <= surprise).unwrap();
                let found = accepted_violations(repetitions as usize, level(epsilon), level(surprise));
                assert_eq!(found as u64, expected, "{repetitions}, {epsilon}, {surprise}");
            }
        }
    }
}

fn every_procedure() -> Vec<Procedure> {
    // Half of the level goes to the first hypothesis and half to the fourth; each hands it on along its own
    // part and then to the other.
    let ring: Vec<Vec<f64>> =
        (0..8).map(|i| (0..8).map(|j| if j == (i + 1) % 8 { 1.0 } else { 0.0 }).collect()).collect();
    let graph = Graph::new(vec![0.5, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0], ring).unwrap();
    let mut procedures: Vec<Procedure> = Procedure::NAMES.iter().map(|name| name.parse().unwrap()).collect();
    procedures.push(Procedure::Graphical { graph: Some(graph) });
    procedures.push(Procedure::MultiStart { starts: 2 });
    procedures.push(Procedure::Pareto { split: Split::new(0.25, 7).unwrap() });
    procedures
}

fn check(losses: Losses, p_value: PValue, min_certified_of_200: f64) {
    let options = |procedures: Vec<Procedure>| -> Vec<CalibrationOptions> {
        procedures.into_iter().map(|procedure| options(losses, p_value, procedure)).collect()
    };
    let all = options(every_procedure());
    for (risks, examples) in [(Risks::Cliff, 20), (Risks::Cliff, 60), (Risks::Bump, 60)] {
        check_all(losses, risks, examples, &all, 0.0);
    }
    let few = options(["fixed-sequence", "holm", "pareto"].map(|name| name.parse().unwrap()).to_vec());
    check_all(losses, Risks::Slope, 200, &few, min_certified_of_200);
}

#[test]
fn bernoulli_binomial() {
    check(Losses::Bernoulli, PValue::Binomial, 0.8);
}

#[test]
fn bernoulli_hoeffding_bentkus() {
    check(Losses::Bernoulli, PValue::HoeffdingBentkus, 0.8);
}

#[test]
fn bernoulli_betting() {
    check(Losses::Bernoulli, PValue::Betting, 0.7);
}

#[test]
fn beta_hoeffding_bentkus() {
    check(Losses::Beta, PValue::HoeffdingBentkus, 0.9);
}

#[test]
fn beta_betting() {
    check(Losses::Beta, PValue::Betting, 0.9);
}

#[test]
fn mostly_zero_betting() {
    check(Losses::MostlyZero, PValue::Betting, 0.9);
}

#[test]
fn mostly_zero_hoeffding_kl() {
    check(Losses::MostlyZero, PValue::HoeffdingKl, 0.9);
}

#[test]
fn two_point_bentkus() {
    check(Losses::TwoPoint, PValue::Bentkus, 0.9);
}

#[test]
fn two_point_betting() {
    check(Losses::TwoPoint, PValue::Betting, 0.9);
}

#[test]
fn positive_part_betting() {
    check(Losses::PositivePart, PValue::Betting, 0.9);
}

#[test]
fn signed_differences_betting() {
    check(Losses::ThreePoint, PValue::Betting, 0.05);
    check(Losses::Uniform, PValue::Betting, 0.9);
}

#[test]
fn signed_differences_rescaled() {
    check(Losses::ThreePoint, PValue::HoeffdingBentkus, 0.0);
    check(Losses::Uniform, PValue::HoeffdingBentkus, 0.0);
}

#[test]
fn quantiles() {
    check(Losses::AboveLimit, PValue::Binomial, 0.8);
}

#[test]
fn paper() {
    for losses in
        [Losses::Bernoulli, Losses::TwoPoint, Losses::Beta, Losses::MostlyZero, Losses::PositivePart]
    {
        let options = options(losses, PValue::HoeffdingBentkus, Procedure::FixedSequence);
        for (risks, examples, min_certified) in [
            (Risks::Cliff, 20, 0.0),
            (Risks::Cliff, 60, 1.0),
            (Risks::Cliff, 100, 1.0),
            (Risks::Bump, 100, 0.9),
            (Risks::Slope, 100, 0.9),
        ] {
            check_all(losses, risks, examples, std::slice::from_ref(&options), min_certified);
        }
    }
}

#[test]
fn another_error_probability() {
    for p_value in [PValue::Binomial, PValue::Betting] {
        let options = options(Losses::Bernoulli, p_value, Procedure::FixedSequence);
        let options = CalibrationOptions { epsilon: level(0.2), ..options };
        check_all(Losses::Bernoulli, Risks::Cliff, 100, &[options], 1.0);
    }
}

/// An easy case must be certified, or a calibration that always falls back would pass all other tests.
#[test]
fn certifies_what_has_no_loss() {
    let check = |p_value: PValue, examples: usize, expected: f64| {
        let table = LossTable::new(thresholds(), vec![vec![0.0; examples]; 8]).unwrap();
        let options = options(Losses::Beta, p_value, Procedure::FixedSequence);
        assert!((calibrate(&table, &options).unwrap().threshold - expected).abs() < 1e-12);
    };
    check(PValue::HoeffdingBentkus, 28, 1.0);
    check(PValue::HoeffdingBentkus, 29, 0.2);
    check(PValue::Betting, 31, 1.0);
    check(PValue::Betting, 32, 0.2);
}

/// The 100 losses follow a Beta distribution with mean 0.04 and the variance `mean (1 - mean) / 6`.
///
/// Betting certifies nearly always, Hoeffding-Bentkus in three of ten samples.
#[test]
fn betting_needs_fewer_fractional_losses() {
    let share = |p_value: PValue| {
        let certified = (0..REPETITIONS).filter(|&seed| {
            let mut rng = crate::scenario::rng(seed);
            let losses: Vec<f64> = (0..100).map(|_| beta(0.2, 4.8, &mut rng)).collect();
            let kind = Losses::Beta.kind();
            p_value.of_losses(&losses, kind, tolerance(0.1), level(0.05)).unwrap().rejected_at(level(0.05))
        });
        certified.count() as f64 / REPETITIONS as f64
    };
    let (betting, hoeffding_bentkus) = (share(PValue::Betting), share(PValue::HoeffdingBentkus));
    assert!(betting > 0.97, "{betting}");
    assert!((0.25..0.37).contains(&hoeffding_bentkus), "{hoeffding_bentkus}");
}

/// Draws from Beta(a, b) with a below 1 and b above, by rejection.
///
/// A draw from Beta(a, 1) is accepted with probability `(1 - x)^(b - 1)`.
fn beta(a: f64, b: f64, rng: &mut rand_chacha::ChaCha8Rng) -> f64 {
    use rand::RngExt;
    loop {
        let x = rng.random::<f64>().powf(1.0 / a);
        if rng.random::<f64>() < (1.0 - x).powf(b - 1.0) {
            return x;
        }
    }
}

/// For the right procedure, `repeat`, with which the wrong procedures are run, sees the same as `calibrate`.
#[test]
fn both_ways_of_repeating_agree() {
    let options = options(Losses::Bernoulli, PValue::Betting, Procedure::Holm);
    let counts = repeat(Losses::Bernoulli, Risks::Slope, 60, |table| {
        let calibration = calibrate(&LossTable::new(thresholds(), table).unwrap(), &options).unwrap();
        (0..8).filter(|&i| calibration.certified.contains(&thresholds()[i])).collect()
    });
    assert!(counts.violations <= accepted(0.05) && counts.certified > 100, "{counts:?}");
}
