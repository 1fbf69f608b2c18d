use super::LogP;
use crate::binomial_distribution::binomial_deviance;
use crate::loss_sum::UnitSum;
use crate::{LossSum, Tolerance};

/// The p-value of Hoeffding's inequality with the Kullback-Leibler divergence (Hoeffding 1963, theorem 1).
///
/// It is `exp(-n h(min(mean, delta), delta))` with `h(a, b) = a ln(a / b) + (1 - a) ln((1 - a) / (1 - b))`.
/// If no loss occurs it is `(1 - delta)^n`.
pub fn hoeffding_kl(losses: LossSum, tolerance: Tolerance) -> LogP {
    LogP::of_sum(losses, tolerance, ln_bound)
}

pub(super) fn ln_bound(losses: UnitSum, delta: f64) -> f64 {
    let (sum, examples) = (losses.sum, losses.examples as f64);
    if sum == 0.0 {
        examples * (-delta).ln_1p()
    } else if sum >= examples * delta {
        0.0
    } else {
        -binomial_deviance(sum, examples, delta)
    }
}
