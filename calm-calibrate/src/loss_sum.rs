use crate::{Error, InvalidLoss, LossKind};

/// The sum of a sample's losses.
///
/// It is all that p-values need to know which ignore the order of the data. The mean would not do, because
/// the mean times the number of examples often differs from the sum (`100.0 * 0.07 > 7.0`), and the p-values
/// round the sum up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossSum {
    sum: f64,
    examples: usize,
    kind: LossKind,
}

impl LossSum {
    /// Takes a sum.
    ///
    /// # Errors
    /// [`Error::NoExamples`], and [`Error::ImpossibleSum`] for a sum that so many losses of this kind cannot
    /// have.
    pub fn new(sum: f64, examples: usize, kind: LossKind) -> Result<Self, Error> {
        if examples == 0 {
            return Err(Error::NoExamples);
        }
        let whole_where_binary = kind != LossKind::Binary || sum.fract() == 0.0;
        let largest = examples as f64;
        if (kind.least() * largest..=largest).contains(&sum) && whole_where_binary {
            Ok(Self { sum, examples, kind })
        } else {
            Err(Error::ImpossibleSum { sum, examples, kind })
        }
    }

    /// Adds up the losses of a sample with compensation.
    ///
    /// # Errors
    /// The first loss outside the range of `kind`, and [`Error::NoExamples`].
    pub fn of(losses: &[f64], kind: LossKind) -> Result<Self, Error> {
        let mut total = RunningSum::new(kind);
        total.push(losses)?;
        total.total()
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

    /// The empirical loss, which is the mean over the examples.
    pub fn mean(self) -> f64 {
        self.sum / self.examples as f64
    }

    /// Returns the sum on the unit interval. Differences are rescaled to `(loss + 1) / 2`, and so is their
    /// tolerance.
    pub(crate) fn on_unit_interval(self) -> UnitSum {
        let Self { sum, examples, kind } = self;
        if kind != LossKind::Difference {
            // A rounding error upwards only makes a p-value larger, so nothing is subtracted before rounding
            // up.
            return UnitSum { sum, ceil: sum.ceil() as usize, examples };
        }
        let largest = examples as f64;
        let rescaled = 0.5 * (sum + largest);
        // If the addition dropped a positive rest, the whole number above is the right one.
        let dropped = 2.0 * rescaled - largest < sum && rescaled.fract() == 0.0;
        UnitSum { sum: rescaled, ceil: rescaled.ceil() as usize + usize::from(dropped), examples }
    }
}

/// A sum of losses in `[0, 1]`, and that sum rounded up to a whole number of losses of 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnitSum {
    pub(crate) sum: f64,
    pub(crate) ceil: usize,
    pub(crate) examples: usize,
}

/// Neumaier's summation of losses that arrive in pieces.
///
/// A plain sum drifts by up to n roundings, and the p-values round it up: 1e6 losses that add up to exactly
/// 1000 must not give 1000.0000001, and hence 1001.
#[derive(Debug, Clone)]
pub(crate) struct RunningSum {
    kind: LossKind,
    examples: usize,
    sum: f64,
    compensation: f64,
}

impl RunningSum {
    pub(crate) fn new(kind: LossKind) -> Self {
        Self { kind, examples: 0, sum: 0.0, compensation: 0.0 }
    }

    /// Adds the next losses. Fails at the first one outside the range of the kind.
    pub(crate) fn push(&mut self, losses: &[f64]) -> Result<(), InvalidLoss> {
        self.kind.check(losses, self.examples)?;
        let (mut sum, mut compensation) = (self.sum, self.compensation);
        for &loss in losses {
            let total = sum + loss;
            compensation += if sum.abs() >= loss.abs() { (sum - total) + loss } else { (loss - total) + sum };
            sum = total;
        }
        (self.sum, self.compensation) = (sum, compensation);
        self.examples += losses.len();
        Ok(())
    }

    pub(crate) fn examples(&self) -> usize {
        self.examples
    }

    /// Returns the sum. Fails if there were no losses.
    pub(crate) fn total(&self) -> Result<LossSum, Error> {
        // Rounding must not leave the range that the losses keep.
        let largest = self.examples as f64;
        let sum = (self.sum + self.compensation).clamp(self.kind.least() * largest, largest);
        LossSum::new(sum, self.examples, self.kind)
    }
}
