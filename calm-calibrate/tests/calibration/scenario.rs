//! Repeats calibrations with a known risk.
//!
//! The number of violations is compared with the quantile of its binomial distribution that a correct
//! calibration exceeds once in a million runs, not with epsilon itself, which a sharp procedure exceeds every
//! other time. 2000 calibrations then show a true rate of 2 epsilon with certainty. `wrong_procedures` tests
//! that the rule has this power.

use calm_calibrate::{
    CalibrationOptions, LossKind, LossTable, PValue, Procedure, accepted_violations, calibrate, exceeds,
    positive_part_risk_loss,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{level, tolerance};

pub(crate) const REPETITIONS: u64 = 2000;
pub(crate) const DELTA: f64 = 0.1;

/// Distributions of a loss with a given mean.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Losses {
    Bernoulli,
    /// The loss is 0 or 1/2.
    TwoPoint,
    /// The loss follows Beta(1/c, 1) with the c that gives the mean: a power of a uniform number.
    Beta,
    /// The loss is 0 for most examples, else it follows a Beta(2/3, 1) of mean 0.4.
    MostlyZero,
    /// The loss is the positive part of a difference of two risks that is as often negative.
    PositivePart,
    /// The loss is whether another one is above a limit; the mean is the share of those that are.
    AboveLimit,
    /// The loss is a difference of two losses: 0 for three examples of five, else -1 or 1.
    ThreePoint,
    /// The loss is a difference of two losses, uniform on an interval around the mean.
    Uniform,
}

impl Losses {
    pub(crate) fn draw(self, mean: f64, rng: &mut ChaCha8Rng) -> f64 {
        let with_probability = |p: f64, rng: &mut ChaCha8Rng| rng.random::<f64>() < p;
        match self {
            Losses::Bernoulli => f64::from(u8::from(with_probability(mean, rng))),
            Losses::TwoPoint => 0.5 * f64::from(u8::from(with_probability(2.0 * mean, rng))),
            Losses::Beta if mean == 0.0 => 0.0,
            Losses::Beta => rng.random::<f64>().powf(1.0 / mean - 1.0),
            Losses::MostlyZero if with_probability(mean / 0.4, rng) => rng.random::<f64>().powf(1.5),
            Losses::MostlyZero => 0.0,
            // A triangular difference on [-1, 1] is scaled so that its positive part, which is 1/6 by itself,
            // has the mean.
            Losses::PositivePart => {
                let (early, full) = (rng.random::<f64>(), rng.random::<f64>());
                let scale = 6.0 * mean;
                positive_part_risk_loss(scale * early, scale * full).unwrap()
            }
            Losses::AboveLimit => exceeds(0.3 / (1.0 - mean) * rng.random::<f64>(), 0.3),
            Losses::ThreePoint => {
                let u = rng.random::<f64>();
                if u < 0.2 + 0.5 * mean {
                    1.0
                } else if u < 0.4 {
                    -1.0
                } else {
                    0.0
                }
            }
            Losses::Uniform => mean + 0.6 * (rng.random::<f64>() - 0.5),
        }
    }

    pub(crate) fn kind(self) -> LossKind {
        match self {
            Losses::Bernoulli | Losses::AboveLimit => LossKind::Binary,
            Losses::ThreePoint | Losses::Uniform => LossKind::Difference,
            _ => LossKind::UnitInterval,
        }
    }
}

/// True risks along the sequence of thresholds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Risks {
    /// The risks are safe at first, then just above delta.
    ///
    /// There each threshold is one more chance of a false certification.
    Cliff,
    /// The risks are not monotone: they are above delta only in the middle.
    Bump,
    /// The risks rise slowly through delta.
    Slope,
}

impl Risks {
    pub(crate) fn means(self) -> [f64; 8] {
        let above = DELTA + 1e-9;
        match self {
            Risks::Cliff => [0.0, 0.0, above, above, above, above, above, above],
            Risks::Bump => [0.01, 0.02, 0.13, 0.15, 0.13, 0.02, 0.01, 0.01],
            Risks::Slope => [0.01, 0.03, 0.06, 0.08, 0.099, above, 0.12, 0.15],
        }
    }
}

pub(crate) fn thresholds() -> Vec<f64> {
    (0..8).map(|i| 0.9 - 0.1 * f64::from(i)).collect()
}

pub(crate) fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Draws losses of `examples` examples, independent at every threshold, the worst case for a fixed sequence.
pub(crate) fn draw_table(losses: Losses, risks: Risks, examples: usize, seed: u64) -> Vec<Vec<f64>> {
    let mut rng = rng(seed);
    let row = |&mean: &f64| (0..examples).map(|_| losses.draw(mean, &mut rng)).collect();
    risks.means().iter().map(row).collect()
}

/// The most violations in all repetitions that a right calibration may have.
pub(crate) fn accepted(epsilon: f64) -> usize {
    accepted_violations(REPETITIONS as usize, level(epsilon), level(1e-6))
}

pub(crate) fn options(losses: Losses, p_value: PValue, procedure: Procedure) -> CalibrationOptions {
    CalibrationOptions { p_value, procedure, ..CalibrationOptions::new(tolerance(DELTA), losses.kind()) }
}

/// How often something was certified, and how often something with a risk above delta was.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) certified: usize,
    pub(crate) violations: usize,
}

impl Counts {
    pub(crate) fn add(&mut self, certified_means: impl IntoIterator<Item = f64>) {
        let largest = certified_means.into_iter().reduce(f64::max);
        self.certified += usize::from(largest.is_some());
        self.violations += usize::from(largest.is_some_and(|mean| mean > DELTA));
    }
}

/// Repeats a calibration that returns the indices of what it certifies.
pub(crate) fn repeat(
    losses: Losses,
    risks: Risks,
    examples: usize,
    certify: impl Fn(Vec<Vec<f64>>) -> Vec<usize>,
) -> Counts {
    let mut counts = Counts::default();
    for seed in 0..REPETITIONS {
        let certified = certify(draw_table(losses, risks, examples, seed));
        counts.add(certified.into_iter().map(|index| risks.means()[index]));
    }
    counts
}

/// Repeats calibrations with each of `options` on the same losses.
///
/// Expects few violations of any certified threshold, not only of the returned one, and something certified
/// in at least `min_certified` of the calibrations.
pub(crate) fn check_all(
    losses: Losses,
    risks: Risks,
    examples: usize,
    options: &[CalibrationOptions],
    min_certified: f64,
) {
    let mut counts = vec![Counts::default(); options.len()];
    for seed in 0..REPETITIONS {
        let table = LossTable::new(thresholds(), draw_table(losses, risks, examples, seed)).unwrap();
        for (options, counts) in options.iter().zip(&mut counts) {
            let calibration = calibrate(&table, options).unwrap();
            let index = |threshold: &f64| thresholds().iter().position(|other| other == threshold).unwrap();
            counts.add(calibration.certified.iter().map(|threshold| risks.means()[index(threshold)]));
        }
    }
    for (options, counts) in options.iter().zip(&counts) {
        let CalibrationOptions { p_value, procedure, epsilon, .. } = options;
        let name = format!("{losses:?} {risks:?} {examples} {p_value} {procedure}: {counts:?}");
        assert!(counts.violations <= accepted(epsilon.get()), "too many violations: {name}");
        assert!(counts.certified as f64 >= min_certified * REPETITIONS as f64, "too little: {name}");
    }
}
