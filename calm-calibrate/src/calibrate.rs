use serde::{Deserialize, Serialize};

use crate::{Error, ErrorProbability, LogP, LossKind, LossSum, LossTable, PValue, Procedure, Tolerance};

/// The threshold that never exits: the full model, whose loss is 0 by definition.
const FULL_MODEL: f64 = 1.0;

/// How far from 0 the full model's loss may be: some metrics miss the perfect score of a text compared with itself by a
/// rounding of `f32`.
const FULL_MODEL_ROUNDING: f64 = 1e-6;

/// How to calibrate. All of it is to be fixed before seeing the losses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibrationOptions {
    /// The tolerated expected loss.
    pub delta: Tolerance,
    /// The probability that the guarantee fails.
    pub epsilon: ErrorProbability,
    /// The p-value of each threshold.
    pub p_value: PValue,
    /// The family-wise procedure.
    pub procedure: Procedure,
    /// The declared kind of the losses.
    pub loss_kind: LossKind,
}

impl CalibrationOptions {
    /// The paper's: fixed-sequence testing with Hoeffding-Bentkus p-values on losses in `[0, 1]`, epsilon 0.05.
    pub fn paper(delta: Tolerance) -> Self {
        Self {
            delta,
            epsilon: ErrorProbability::PAPER,
            p_value: PValue::HoeffdingBentkus,
            procedure: Procedure::FixedSequence,
            loss_kind: LossKind::UnitInterval,
        }
    }
}

/// A certified threshold and how it came about.
///
/// `thresholds`, `empirical_losses`, `p_values` and `log_p_values` have an entry for each tested threshold, in the order of
/// testing. Threshold 1 is not among them even if the table has it: it needs no test and takes no share of `epsilon`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The least certified threshold, or 1 if none is.
    pub threshold: f64,
    /// Nothing was certified: `threshold` is 1, the full model, which holds the guarantee because it never exits.
    pub fallback: bool,
    /// The certified thresholds, descending.
    pub certified: Vec<f64>,
    /// The tested thresholds, descending.
    pub thresholds: Vec<f64>,
    /// Mean losses.
    pub empirical_losses: Vec<f64>,
    /// p-values; 0 where they are below the smallest double.
    pub p_values: Vec<f64>,
    /// Natural logarithms of the p-values. Those after a fixed sequence's first failure are for information: they
    /// decided nothing.
    pub log_p_values: Vec<LogP>,
    /// Number of calibration examples.
    pub examples: usize,
    /// The family-wise procedure.
    pub procedure: Procedure,
    /// The kind of p-value.
    pub p_value: PValue,
    /// The declared kind of the losses.
    pub loss_kind: LossKind,
    /// The tolerated expected loss.
    pub delta: Tolerance,
    /// The probability that the guarantee fails.
    pub epsilon: ErrorProbability,
}

impl Calibration {
    /// The mean loss on the calibration examples at [`threshold`](Self::threshold); 0 for the full model.
    pub fn empirical_loss(&self) -> f64 {
        let selected = self.thresholds.iter().position(|&threshold| threshold == self.threshold);
        selected.map_or(0.0, |index| self.empirical_losses[index])
    }
}

/// Finds the least threshold whose expected loss is at most `delta`, with probability at least `1 - epsilon` (Schuster et
/// al. 2022, proposition 1: the minimum of the certified thresholds and 1).
///
/// Fails on a loss outside the range of the declared kind, on a loss of the full model (threshold 1) that is not 0 and on
/// a p-value that does not hold for the kind of loss. That nothing is certified is a result, not an error.
pub fn calibrate(table: &LossTable, options: &CalibrationOptions) -> Result<Calibration, Error> {
    let &CalibrationOptions { delta, epsilon, p_value, procedure, loss_kind } = options;
    let (mut thresholds, mut empirical_losses, mut log_p_values) = (Vec::new(), Vec::new(), Vec::new());
    for (threshold_index, &threshold) in table.thresholds().iter().enumerate() {
        let losses = table.losses(threshold_index);
        if threshold == FULL_MODEL {
            check_full_model(losses)?;
            continue;
        }
        let losses = LossSum::of(losses, loss_kind).map_err(|error| match error {
            Error::InvalidLoss(invalid) => Error::InvalidLossInTable { threshold_index, threshold, invalid },
            other => other,
        })?;
        thresholds.push(threshold);
        empirical_losses.push(losses.mean());
        log_p_values.push(p_value.log_p(losses, delta)?);
    }
    let certified: Vec<f64> =
        procedure.reject(&log_p_values, epsilon).into_iter().map(|index| thresholds[index]).collect();
    Ok(Calibration {
        threshold: certified.last().copied().unwrap_or(FULL_MODEL),
        fallback: certified.is_empty(),
        certified,
        thresholds,
        empirical_losses,
        p_values: log_p_values.iter().map(|log_p| log_p.p()).collect(),
        log_p_values,
        examples: table.examples(),
        procedure,
        p_value,
        loss_kind,
        delta,
        epsilon,
    })
}

fn check_full_model(losses: &[f64]) -> Result<(), Error> {
    match losses.iter().position(|loss| loss.is_nan() || loss.abs() > FULL_MODEL_ROUNDING) {
        Some(example) => Err(Error::FullModelLoss { example, loss: losses[example] }),
        None => Ok(()),
    }
}
