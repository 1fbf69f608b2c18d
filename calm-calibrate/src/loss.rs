use calm_names::names;
use serde::{Deserialize, Serialize};

use crate::{Error, InvalidLoss};

/// Which values a loss can take by its definition. It is never guessed from a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum LossKind {
    /// The loss is 0 or 1.
    Binary,
    /// The loss is any number in `[0, 1]`.
    UnitInterval,
    /// The loss is the difference of two losses in `[0, 1]`, so any number in `[-1, 1]`.
    ///
    /// It says how much worse the early-exit output is than the full model's, and is negative if it is
    /// better. A gain of one example makes up for a loss of another.
    Difference,
}

names!(LossKind, "kind of loss", {
    Binary => "binary",
    UnitInterval => "unit",
    Difference => "difference",
});

impl LossKind {
    /// Whether a loss of this kind can have this value; NaN is never one.
    pub fn contains(self, loss: f64) -> bool {
        match self {
            LossKind::Binary => loss == 0.0 || loss == 1.0,
            LossKind::UnitInterval => (0.0..=1.0).contains(&loss),
            LossKind::Difference => (-1.0..=1.0).contains(&loss),
        }
    }

    /// The least value of a loss of this kind. The largest is 1 for all kinds.
    pub fn least(self) -> f64 {
        match self {
            LossKind::Binary | LossKind::UnitInterval => 0.0,
            LossKind::Difference => -1.0,
        }
    }

    pub(crate) fn range(self) -> &'static str {
        match self {
            LossKind::Binary => "{0, 1}",
            LossKind::UnitInterval => "[0, 1]",
            LossKind::Difference => "[-1, 1]",
        }
    }

    /// Fails on the first loss that a loss of this kind cannot be.
    ///
    /// `first_example` is the index of the first of `losses`.
    pub(crate) fn check(self, losses: &[f64], first_example: usize) -> Result<(), InvalidLoss> {
        // Nearly always all losses are right: without an early exit several are checked at once.
        if losses.iter().fold(true, |all, &loss| all & self.contains(loss)) {
            return Ok(());
        }
        match losses.iter().position(|&loss| !self.contains(loss)) {
            Some(index) => {
                Err(InvalidLoss { example: first_example + index, loss: losses[index], kind: self })
            }
            None => Ok(()),
        }
    }
}

/// The loss of risk consistency: how much worse than the full model's the early-exit output is, and 0 if it
/// is not worse.
///
/// It is equation 11 of Schuster et al. 2022. Both risks are in `[0, 1]` against the same reference.
///
/// The positive part is taken per example, before any mean. It keeps the loss in `[0, 1]` and makes the
/// calibration conservative: the mean of the positive parts is at least the positive part of the mean.
///
/// # Errors
/// [`Error::OutOfRange`] for a risk outside `[0, 1]`.
pub fn positive_part_risk_loss(early_risk: f64, full_risk: f64) -> Result<f64, Error> {
    signed_risk_loss(early_risk, full_risk).map(|difference| difference.max(0.0))
}

/// How much worse than the full model's the early-exit output is, a loss of kind [`LossKind::Difference`].
///
/// Both risks are in `[0, 1]` against the same reference.
///
/// Its mean is the very quantity that the paper's definition 2 bounds, while the mean of
/// [`positive_part_risk_loss`] is larger: 4 to 10 times larger for outputs that differ at random without
/// being worse.
///
/// # Errors
/// [`Error::OutOfRange`] for a risk outside `[0, 1]`.
pub fn signed_risk_loss(early_risk: f64, full_risk: f64) -> Result<f64, Error> {
    for (quantity, risk) in
        [("the early-exit output's risk", early_risk), ("the full output's risk", full_risk)]
    {
        if !(0.0..=1.0).contains(&risk) {
            return Err(Error::OutOfRange { quantity, range: "[0, 1]", found: risk.to_string() });
        }
    }
    Ok(early_risk - full_risk)
}

/// Whether a loss is above `limit`, as a [`LossKind::Binary`] loss.
///
/// The mean of that loss is the share of examples above the limit.
///
/// Calibrated with a tolerance `q`, it bounds a quantile instead of a mean: "at most 5 % of the outputs
/// differ by more than 0.3" is the limit 0.3 with the tolerance 0.05. NaN is above every limit.
pub fn exceeds(loss: f64, limit: f64) -> f64 {
    if loss <= limit { 0.0 } else { 1.0 }
}
