use super::LogP;
use crate::binomial_distribution::log_cdf;
use crate::loss_sum::UnitSum;
use crate::{LossSum, Tolerance};

/// The p-value of Bentkus' inequality.
///
/// It is `e P(X <= ceil(sum))` for X binomial with n trials of probability `delta`.
/// See Bentkus 2004, and Bates et al. 2021, section 3.1.2.
///
/// The sum is rounded up; rounding it down would give smaller values that the inequality does not support.
pub fn bentkus(losses: LossSum, tolerance: Tolerance) -> LogP {
    LogP::of_sum(losses, tolerance, ln_bound)
}

pub(super) fn ln_bound(losses: UnitSum, delta: f64) -> f64 {
    1.0 + log_cdf(losses.ceil, losses.examples, delta)
}
