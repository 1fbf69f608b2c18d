use serde::{Deserialize, Serialize};

use crate::calibrate::FULL_MODEL;
use crate::{Error, LossKind, LossTable, Tolerance};

/// A threshold from [`conformal_risk_control`].
///
/// Its loss is tolerable *in expectation over calibrations*.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpectationControl {
    /// The least threshold that was accepted, or 1 if none was.
    pub threshold: f64,
    /// Whether nothing was accepted. Then `threshold` is 1, the full model.
    pub fallback: bool,
    /// All thresholds below 1, from 0 on, descending.
    pub thresholds: Vec<f64>,
    /// The bound `(sum + 1) / (n + 1)` of each threshold, of losses made monotone, that was compared with
    /// delta.
    pub bounds: Vec<f64>,
    /// Number of calibration examples.
    pub examples: usize,
    /// The tolerated expected loss.
    pub delta: Tolerance,
}

/// Conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster 2024).
///
/// Finds the least threshold with `(sum of the losses + 1) / (n + 1) <= delta`.
///
/// **This is not CALM's guarantee.** It bounds the expected loss on average over calibration sets *and*
/// prompts: about every other calibration may return a threshold whose expected loss exceeds `delta`, by a
/// little. In return it needs fewer examples, and no epsilon. Use [`calibrate`](crate::calibrate()) if this
/// one calibration has to be right.
///
/// The theorem needs losses that never fall when the threshold does. The losses of early exits do fall, so
/// each example's loss is replaced by its largest at this threshold or any above, which is monotone.
///
/// # Errors
/// [`Error::InvalidLossInTable`] for a loss outside the range of `kind`.
pub fn conformal_risk_control(
    table: &LossTable,
    kind: LossKind,
    delta: Tolerance,
) -> Result<ExpectationControl, Error> {
    // The full model's losses are 0, and a monotone loss may not fall below them.
    let mut largest = vec![0.0_f64; table.examples()];
    let (mut thresholds, mut bounds) = (Vec::new(), Vec::new());
    for (threshold_index, &threshold) in table.thresholds().iter().enumerate() {
        let losses = table.losses(threshold_index);
        kind.check(losses, 0).map_err(|invalid| Error::InvalidLossInTable {
            threshold_index,
            threshold,
            invalid,
        })?;
        if threshold == FULL_MODEL {
            continue;
        }
        largest.iter_mut().zip(losses).for_each(|(largest, &loss)| *largest = largest.max(loss));
        thresholds.push(threshold);
        bounds.push((largest.iter().sum::<f64>() + 1.0) / (table.examples() as f64 + 1.0));
    }
    let accepted = bounds.iter().take_while(|&&bound| bound <= delta.get()).count();
    let threshold = if accepted == 0 { FULL_MODEL } else { thresholds[accepted - 1] };
    let (fallback, examples) = (accepted == 0, table.examples());
    Ok(ExpectationControl { threshold, fallback, thresholds, bounds, examples, delta })
}
