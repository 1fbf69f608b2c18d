//! Repeated calibrations with a known risk: the returned threshold's true risk may exceed delta in at most a fraction epsilon
//! of them.
//!
//! The number of violations is compared with the quantile of its binomial distribution that a correct calibration exceeds
//! once in a million runs, not with epsilon itself, which a sharp procedure exceeds every other time. 2000 calibrations then
//! show a true rate of 2 epsilon with certainty. That the test has this power is tested too, with wrong procedures.

use calm_calibrate::{
    CalibrationOptions, ErrorProbability, LossKind, LossTable, PValue, Procedure, calibrate,
    positive_part_risk_loss,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{Binomial, DiscreteCDF};

use crate::tolerance;

const REPETITIONS: u64 = 2000;
const DELTA: f64 = 0.1;

/// Distributions of a loss in `[0, 1]` with a given mean.
#[derive(Debug, Clone, Copy)]
enum Losses {
    Bernoulli,
    /// 0 or 1/2.
    TwoPoint,
    /// Beta(1/c, 1) with the c that gives the mean: a power of a uniform number.
    Beta,
    /// 0 for most examples, else a Beta(2/3, 1) of mean 0.4.
    MostlyZero,
    /// The positive part of a difference of two risks that is as often negative.
    PositivePart,
}

impl Losses {
    fn draw(self, mean: f64, rng: &mut ChaCha8Rng) -> f64 {
        let with_probability = |p: f64, rng: &mut ChaCha8Rng| rng.random::<f64>() < p;
        match self {
            Losses::Bernoulli => f64::from(u8::from(with_probability(mean, rng))),
            Losses::TwoPoint => 0.5 * f64::from(u8::from(with_probability(2.0 * mean, rng))),
            Losses::Beta if mean == 0.0 => 0.0,
            Losses::Beta => rng.random::<f64>().powf(1.0 / mean - 1.0),
            Losses::MostlyZero if with_probability(mean / 0.4, rng) => rng.random::<f64>().powf(1.5),
            Losses::MostlyZero => 0.0,
            // A triangular difference on [-1, 1] scaled so that its positive part, 1/6 by itself, has the mean.
            Losses::PositivePart => {
                let (early, full) = (rng.random::<f64>(), rng.random::<f64>());
                let scale = 6.0 * mean;
                positive_part_risk_loss(scale * early, scale * full).unwrap()
            }
        }
    }

    fn kind(self) -> LossKind {
        if matches!(self, Losses::Bernoulli) { LossKind::Binary } else { LossKind::UnitInterval }
    }
}

/// True risks along the sequence of thresholds.
#[derive(Debug, Clone, Copy)]
enum Risks {
    /// Safe at first, then just above delta, where each threshold is one more chance of a false certification.
    Cliff,
    /// Not monotone: above delta in the middle only.
    Bump,
    /// Slowly rising through delta.
    Slope,
}

impl Risks {
    fn means(self) -> [f64; 8] {
        let above = DELTA + 1e-9;
        match self {
            Risks::Cliff => [0.0, 0.0, above, above, above, above, above, above],
            Risks::Bump => [0.01, 0.02, 0.13, 0.15, 0.13, 0.02, 0.01, 0.01],
            Risks::Slope => [0.01, 0.03, 0.06, 0.08, 0.099, above, 0.12, 0.15],
        }
    }
}

fn thresholds() -> Vec<f64> {
    (0..8).map(|i| 0.9 - 0.1 * f64::from(i)).collect()
}

/// Losses of `examples` examples, independent at every threshold: the worst case for a fixed sequence.
fn draw_table(losses: Losses, risks: Risks, examples: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f64>> {
    risks.means().iter().map(|&mean| (0..examples).map(|_| losses.draw(mean, rng)).collect()).collect()
}

/// How often the threshold that `choose` returns has a true risk above delta, and how often it is below 1.
fn violations(
    losses: Losses,
    risks: Risks,
    examples: usize,
    choose: impl Fn(Vec<Vec<f64>>) -> f64,
) -> (u64, u64) {
    let (thresholds, means) = (thresholds(), risks.means());
    let (mut violations, mut certified) = (0, 0);
    for seed in 0..REPETITIONS {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let threshold = choose(draw_table(losses, risks, examples, &mut rng));
        if let Some(index) = thresholds.iter().position(|&t| t == threshold) {
            certified += 1;
            violations += u64::from(means[index] > DELTA);
        } else {
            assert_eq!(threshold, 1.0);
        }
    }
    (violations, certified)
}

/// The most violations to accept: a binomial count exceeds it with probability at most 1e-6.
fn accepted_violations(repetitions: u64, epsilon: f64) -> u64 {
    let count = Binomial::new(epsilon, repetitions).unwrap();
    (0..repetitions).find(|&violations| count.sf(violations) <= 1e-6).unwrap()
}

#[test]
fn pass_rule() {
    for (repetitions, epsilon, expected) in
        [(500, 0.05, 51), (1000, 0.05, 86), (2000, 0.05, 149), (5000, 0.05, 326), (2000, 0.1, 267)]
    {
        assert_eq!(accepted_violations(repetitions, epsilon), expected);
    }
}

fn options(losses: Losses, p_value: PValue, procedure: Procedure) -> CalibrationOptions {
    CalibrationOptions {
        p_value,
        procedure,
        loss_kind: losses.kind(),
        ..CalibrationOptions::paper(tolerance(DELTA))
    }
}

/// Expects few violations, and a threshold below 1 in at least `min_certified` of the calibrations.
fn check(losses: Losses, risks: Risks, examples: usize, options: &CalibrationOptions, min_certified: f64) {
    let (violations, certified) = violations(losses, risks, examples, |table| {
        calibrate(&LossTable::new(thresholds(), table).unwrap(), options).unwrap().threshold
    });
    let accepted = accepted_violations(REPETITIONS, options.epsilon.get());
    assert!(violations <= accepted, "{losses:?} {risks:?} {examples} {options:?}: {violations} > {accepted}");
    let certified = certified as f64 / REPETITIONS as f64;
    assert!(
        certified >= min_certified,
        "{losses:?} {risks:?} {examples} {options:?}: certified only {certified}"
    );
}

#[test]
fn paper_calibration_keeps_its_guarantee() {
    for losses in
        [Losses::Bernoulli, Losses::TwoPoint, Losses::Beta, Losses::MostlyZero, Losses::PositivePart]
    {
        for (examples, min_certified) in [(20, 0.0), (60, 1.0), (100, 1.0)] {
            let options = options(losses, PValue::HoeffdingBentkus, Procedure::FixedSequence);
            check(losses, Risks::Cliff, examples, &options, min_certified);
        }
        let options = options(losses, PValue::HoeffdingBentkus, Procedure::FixedSequence);
        check(losses, Risks::Bump, 100, &options, 0.9);
        check(losses, Risks::Slope, 100, &options, 0.9);
    }
}

#[test]
fn other_choices_keep_it_too() {
    for risks in [Risks::Cliff, Risks::Bump, Risks::Slope] {
        for procedure in [Procedure::FixedSequence, Procedure::Bonferroni] {
            let check = |losses, p_value| {
                check(losses, risks, 200, &options(losses, p_value, procedure.clone()), 0.5)
            };
            check(Losses::Bernoulli, PValue::Binomial);
            check(Losses::MostlyZero, PValue::HoeffdingKl);
            check(Losses::TwoPoint, PValue::Bentkus);
        }
    }
}

#[test]
fn another_error_probability() {
    let epsilon = ErrorProbability::new(0.2).unwrap();
    let options = options(Losses::Bernoulli, PValue::Binomial, Procedure::FixedSequence);
    check(Losses::Bernoulli, Risks::Cliff, 100, &CalibrationOptions { epsilon, ..options }, 1.0);
}

/// An easy case must be certified, or a calibration that always falls back would pass everything above.
#[test]
fn certifies_what_is_easy() {
    let check = |examples: usize, expected: f64| {
        let table = LossTable::new(thresholds(), vec![vec![0.0; examples]; 8]).unwrap();
        let options = options(Losses::Beta, PValue::HoeffdingBentkus, Procedure::FixedSequence);
        assert!((calibrate(&table, &options).unwrap().threshold - expected).abs() < 1e-12);
    };
    check(28, 1.0);
    check(29, 0.2);
}

/// The wrong procedures found in public code must not pass the rule that the right one passes.
#[test]
fn wrong_procedures_are_caught() {
    let caught = |losses: Losses, risks: Risks, choose: fn(&[f64], &[f64]) -> Option<usize>| {
        let options = options(losses, PValue::Binomial, Procedure::FixedSequence);
        let (violations, _) = violations(losses, risks, 100, |table| {
            let table = LossTable::new(thresholds(), table).unwrap();
            let calibration = calibrate(&table, &options).unwrap();
            let chosen = choose(&calibration.p_values, &calibration.empirical_losses);
            chosen.map_or(1.0, |index| calibration.thresholds[index])
        });
        violations > accepted_violations(REPETITIONS, 0.05)
    };
    let (losses, risks) = (Losses::Bernoulli, Risks::Cliff);
    assert!(
        !caught(losses, risks, |p, _| p.iter().position(|&p| p > 0.05).and_then(|i| i.checked_sub(1))),
        "right"
    );
    assert!(caught(losses, risks, |p, _| p.iter().position(|&p| p > 0.05)), "the first that fails");
    assert!(caught(losses, risks, |p, _| p.iter().rposition(|&p| p <= 0.05)), "the last that passes");
    assert!(caught(losses, risks, |_, mean| mean.iter().rposition(|&mean| mean <= DELTA)), "no test at all");
}
