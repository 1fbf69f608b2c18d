use super::LogP;
use crate::loss_sum::UnitSum;
use crate::{LossSum, Tolerance};

/// The p-value of Hoeffding's inequality in its simple form, `exp(-2 n max(0, delta - mean)^2)`: CALM's
/// equation 9.
///
/// It is here for comparison with the paper: with `delta` 0.1 and `epsilon` 0.05 it certifies nothing below
/// 150 examples, even if no loss occurs, while [`hoeffding_bentkus`](super::hoeffding_bentkus()) needs 29.
pub fn hoeffding(losses: LossSum, tolerance: Tolerance) -> LogP {
    LogP::of_sum(losses, tolerance, ln_bound)
}

pub(super) fn ln_bound(losses: UnitSum, delta: f64) -> f64 {
    let examples = losses.examples as f64;
    let margin = (delta - losses.sum / examples).max(0.0);
    -2.0 * examples * margin * margin
}
