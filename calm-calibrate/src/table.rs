use crate::Error;

/// The losses of the same examples at every threshold of a grid.
#[derive(Debug, Clone, PartialEq)]
pub struct LossTable {
    thresholds: Vec<f64>,
    losses: Vec<Vec<f64>>,
}

impl LossTable {
    /// Makes a table of `losses[threshold][example]`.
    ///
    /// `thresholds` lie in `[0, 1]` and strictly descend, so that the most conservative one comes first. It
    /// makes no difference to a calibration whether threshold 1, the full model, is among them.
    /// [`calibrate`](crate::calibrate()) checks the losses against their declared kind.
    ///
    /// # Errors
    /// There are no thresholds or examples, thresholds are out of their range or not in order, or rows are
    /// missing or differ in length.
    pub fn new(thresholds: Vec<f64>, losses: Vec<Vec<f64>>) -> Result<Self, Error> {
        check_thresholds(&thresholds)?;
        if thresholds.len() != losses.len() {
            return Err(Error::RowCount { thresholds: thresholds.len(), rows: losses.len() });
        }
        let expected = losses[0].len();
        if expected == 0 {
            return Err(Error::NoExamples);
        }
        if let Some(threshold_index) = losses.iter().position(|row| row.len() != expected) {
            return Err(Error::RowLength {
                threshold_index,
                threshold: thresholds[threshold_index],
                expected,
                found: losses[threshold_index].len(),
            });
        }
        Ok(Self { thresholds, losses })
    }

    /// The thresholds, in `[0, 1]`, descending.
    pub fn thresholds(&self) -> &[f64] {
        &self.thresholds
    }

    /// The losses of all examples at the threshold with this index.
    ///
    /// # Panics
    /// Panics if `threshold_index` is not below the number of thresholds.
    pub fn losses(&self, threshold_index: usize) -> &[f64] {
        &self.losses[threshold_index]
    }

    /// The number of examples, at least 1.
    pub fn examples(&self) -> usize {
        self.losses[0].len()
    }
}

/// Fails unless there are thresholds, which all lie in `[0, 1]` and strictly descend.
pub(crate) fn check_thresholds(thresholds: &[f64]) -> Result<(), Error> {
    if thresholds.is_empty() {
        return Err(Error::NoThresholds);
    }
    for (threshold_index, &threshold) in thresholds.iter().enumerate() {
        if !(0.0..=1.0).contains(&threshold) {
            return Err(Error::InvalidThreshold { threshold_index, threshold });
        }
        if let Some(&previous) = thresholds[..threshold_index].last()
            && threshold >= previous
        {
            return Err(Error::ThresholdOrder { threshold_index, threshold, previous });
        }
    }
    Ok(())
}
