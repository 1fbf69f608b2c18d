use super::LogP;
use crate::{LossSum, Tolerance};

/// Hoeffding's inequality in its simple form, `exp(-2 n max(0, delta - mean)^2)`: CALM's equation 9.
///
/// Kept for comparison with the paper: with `delta` 0.1 and `epsilon` 0.05 it certifies nothing below 150 examples, even
/// if no loss occurs, where [`hoeffding_bentkus`](super::hoeffding_bentkus()) needs 29.
pub fn hoeffding(losses: LossSum, tolerance: Tolerance) -> LogP {
    let margin = (tolerance.get() - losses.mean()).max(0.0);
    LogP::from_ln_bound(-2.0 * losses.examples() as f64 * margin * margin)
}
