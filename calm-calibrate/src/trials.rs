//! The paper's protocol, which repeats a calibration on random divisions of the same examples.

use serde::{Deserialize, Serialize};

use crate::calibrate::{Calibration, Calibrator};
use crate::{CalibrationOptions, Error, LossTable, Split, Tolerance};

/// How often to divide the examples, and how.
///
/// The paper does so 50 times, with 80 % for calibration (Schuster et al. 2022, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrialOptions {
    /// Number of divisions.
    pub trials: usize,
    /// Share of the examples to calibrate on; the others are the test examples.
    pub calibration_share: f64,
    /// Seed of the divisions; trial k uses `seed + k`.
    pub seed: u64,
}

impl Default for TrialOptions {
    /// Chooses the paper's options.
    fn default() -> Self {
        Self { trials: 50, calibration_share: 0.8, seed: 0 }
    }
}

/// The division of one trial, as indices of examples.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialSplit {
    /// The examples to calibrate on, in the order in which calibration takes them.
    pub calibration: Vec<usize>,
    /// The examples to measure on, ascending.
    pub test: Vec<usize>,
}

/// The outcome of one trial for one tolerance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// Index of the trial's division.
    pub trial: usize,
    /// The tolerated expected loss.
    pub delta: Tolerance,
    /// Index of the certified threshold in the table; `None` for the full model.
    pub threshold_index: Option<usize>,
    /// The mean loss of the calibration examples at that threshold.
    pub calibration_loss: f64,
    /// The mean loss of the test examples at that threshold.
    ///
    /// If it is above `delta` it is one of the paper's violations. Since few test examples scatter, a right
    /// calibration may also have more than `epsilon` of them.
    pub test_loss: f64,
    /// The mean loss of all examples at that threshold.
    ///
    /// If these were all the examples there are, it would be the expected loss itself, and at most `epsilon`
    /// of the trials may exceed `delta`.
    pub pool_loss: f64,
}

impl TrialOptions {
    /// Returns the division of every trial.
    ///
    /// Many trials need less memory if each is divided when its turn comes, by [`split`](Self::split).
    ///
    /// # Errors
    /// The share is outside (0, 1), or a part would be empty.
    pub fn splits(&self, examples: usize) -> Result<Vec<TrialSplit>, Error> {
        (0..self.trials).map(|trial| self.split(trial, examples)).collect()
    }

    /// Returns the division of one trial.
    ///
    /// # Errors
    /// What [`splits`](Self::splits) fails on.
    pub fn split(&self, trial: usize, examples: usize) -> Result<TrialSplit, Error> {
        let split = Split::new(self.calibration_share, self.seed.wrapping_add(trial as u64))?;
        let (calibration, mut test) = split.parts(examples)?;
        test.sort_unstable();
        Ok(TrialSplit { calibration, test })
    }
}

/// Calibrates on the calibration examples of each of `splits` and measures on its test examples.
///
/// The result has a list of trials for each of `deltas`.
///
/// # Errors
/// What [`calibrate`](crate::calibrate()) fails on.
///
/// # Panics
/// Panics if a split has an index that is not below the number of examples.
pub fn run_trials(
    table: &LossTable,
    options: &CalibrationOptions,
    deltas: &[Tolerance],
    splits: &[TrialSplit],
) -> Result<Vec<Vec<Trial>>, Error> {
    let mut by_delta = vec![Vec::with_capacity(splits.len()); deltas.len()];
    for (index, split) in splits.iter().enumerate() {
        for (trial, trials) in run_trial(table, options, deltas, split)?.into_iter().zip(&mut by_delta) {
            trials.push(Trial { trial: index, ..trial });
        }
    }
    Ok(by_delta)
}

/// Does what [`run_trials`] does for one split: the result has a trial for each of `deltas`, whose index is
/// 0.
///
/// # Errors
/// What [`calibrate`](crate::calibrate()) fails on.
///
/// # Panics
/// Panics if the split has an index that is not below the number of examples.
pub fn run_trial(
    table: &LossTable,
    options: &CalibrationOptions,
    deltas: &[Tolerance],
    split: &TrialSplit,
) -> Result<Vec<Trial>, Error> {
    let mean_of = |threshold_index: usize, examples: &[usize]| {
        let losses = table.losses(threshold_index);
        examples.iter().map(|&example| losses[example]).sum::<f64>() / examples.len() as f64
    };
    let pool: Vec<usize> = (0..table.examples()).collect();
    let examples = split.calibration.len();
    let mut calibrator = Calibrator::new(table.thresholds(), examples, options, deltas)?;
    for threshold_index in 0..table.thresholds().len() {
        let losses = table.losses(threshold_index);
        let drawn: Vec<f64> = split.calibration.iter().map(|&example| losses[example]).collect();
        calibrator.push(threshold_index, &drawn)?;
    }
    let trial = |calibration: Calibration| {
        let certified = |threshold: &f64| !calibration.fallback && *threshold == calibration.threshold;
        let threshold_index = table.thresholds().iter().position(certified);
        let mean = |examples: &[usize]| threshold_index.map_or(0.0, |index| mean_of(index, examples));
        Trial {
            trial: 0,
            delta: calibration.delta,
            threshold_index,
            calibration_loss: calibration.empirical_loss(),
            test_loss: mean(&split.test),
            pool_loss: mean(&pool),
        }
    };
    Ok(calibrator.finish()?.into_iter().map(trial).collect())
}

/// The most violations in `trials` independent trials that agree with a violation probability of `epsilon`.
///
/// A right calibration exceeds it with a probability of at most `surprise`.
///
/// Counts must be compared with this and not with `epsilon * trials`, which a sharp calibration exceeds every
/// other time.
pub fn accepted_violations(
    trials: usize,
    epsilon: crate::ErrorProbability,
    surprise: crate::ErrorProbability,
) -> usize {
    let at_most = |violations| crate::binomial_distribution::log_cdf(violations, trials, epsilon.get());
    // This is P(X > v) = 1 - P(X <= v), without losing the digits of a probability close to 1.
    let exceeded = |violations: usize| -at_most(violations).exp_m1() <= surprise.get();
    (0..trials).find(|&violations| exceeded(violations)).unwrap_or(trials)
}
