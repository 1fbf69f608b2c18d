use serde::{Deserialize, Serialize};

use crate::names::impl_names;
use crate::{Error, InvalidLoss};

/// Which values a loss can take, as its definition says. Never guessed from a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum LossKind {
    /// 0 or 1.
    Binary,
    /// Any number in `[0, 1]`.
    UnitInterval,
}

impl_names!(LossKind, "kind of loss", Binary => "binary", UnitInterval => "unit");

impl LossKind {
    /// Whether a loss of this kind can have this value; NaN never is.
    pub fn contains(self, loss: f64) -> bool {
        match self {
            LossKind::Binary => loss == 0.0 || loss == 1.0,
            LossKind::UnitInterval => (0.0..=1.0).contains(&loss),
        }
    }

    pub(crate) fn range(self) -> &'static str {
        match self {
            LossKind::Binary => "{0, 1}",
            LossKind::UnitInterval => "[0, 1]",
        }
    }
}

/// The loss of risk consistency: how much worse than the full model's the early-exit output is, and 0 where it is not
/// worse (Schuster et al. 2022, equation 11). Both risks are in `[0, 1]` against the same reference.
///
/// The positive part is taken per example, before any mean. It keeps the loss in `[0, 1]` and makes the calibration
/// conservative: the mean of the positive parts is at least the positive part of the mean.
pub fn positive_part_risk_loss(early_risk: f64, full_risk: f64) -> Result<f64, Error> {
    for (quantity, risk) in
        [("the early-exit output's risk", early_risk), ("the full output's risk", full_risk)]
    {
        if !(0.0..=1.0).contains(&risk) {
            return Err(Error::OutOfRange { quantity, range: "[0, 1]", found: risk.to_string() });
        }
    }
    Ok((early_risk - full_risk).max(0.0))
}

/// The sum of the losses of a sample: all that the p-values which ignore the order of the data need to know.
///
/// The sum and not the mean, because the mean times the number of examples is often not the sum any more
/// (`100.0 * 0.07 > 7.0`), and the p-values round the sum up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossSum {
    sum: f64,
    examples: usize,
    kind: LossKind,
}

impl LossSum {
    /// Fails unless there is an example and this many losses of this kind can have this sum.
    pub fn new(sum: f64, examples: usize, kind: LossKind) -> Result<Self, Error> {
        if examples == 0 {
            return Err(Error::NoExamples);
        }
        let whole_where_binary = kind != LossKind::Binary || sum.fract() == 0.0;
        if (0.0..=examples as f64).contains(&sum) && whole_where_binary {
            Ok(Self { sum, examples, kind })
        } else {
            Err(Error::ImpossibleSum { sum, examples, kind })
        }
    }

    /// Adds up the losses of a sample, binary ones as integers and others with compensation. Fails at the first loss
    /// outside the range of `kind`, and if there is none.
    pub fn of(losses: &[f64], kind: LossKind) -> Result<Self, Error> {
        if let Some(example) = losses.iter().position(|&loss| !kind.contains(loss)) {
            return Err(InvalidLoss { example, loss: losses[example], kind }.into());
        }
        let sum = match kind {
            LossKind::Binary => losses.iter().filter(|&&loss| loss == 1.0).count() as f64,
            LossKind::UnitInterval => compensated_sum(losses),
        };
        Self::new(sum, losses.len(), kind)
    }

    /// The sum of the losses.
    pub fn sum(self) -> f64 {
        self.sum
    }

    /// The number of examples, at least 1.
    pub fn examples(self) -> usize {
        self.examples
    }

    /// The declared kind of the losses.
    pub fn kind(self) -> LossKind {
        self.kind
    }

    /// The empirical loss: the mean over the examples.
    pub fn mean(self) -> f64 {
        self.sum / self.examples as f64
    }

    /// The sum rounded up to a whole number of losses of 1, as Bentkus' inequality needs it.
    ///
    /// A rounding error upwards only makes a p-value larger, so nothing is subtracted first.
    pub(crate) fn ceil(self) -> usize {
        self.sum.ceil() as usize
    }
}

/// Neumaier's summation. A plain sum drifts by up to n roundings, and the p-values round it up: 1e6 losses that add up to
/// 1000 exactly must not give 1000.0000001, hence 1001.
fn compensated_sum(values: &[f64]) -> f64 {
    let (mut sum, mut compensation) = (0.0_f64, 0.0);
    for &value in values {
        let total = sum + value;
        compensation += if sum >= value { (sum - total) + value } else { (value - total) + sum };
        sum = total;
    }
    sum + compensation
}
