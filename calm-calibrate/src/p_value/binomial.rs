use super::{LogP, PValue};
use crate::binomial_distribution::log_cdf;
use crate::loss_sum::UnitSum;
use crate::{Error, LossSum, Tolerance};

/// The exact p-value of binary losses, `P(X <= sum)` for X binomial with n trials of probability `delta`.
///
/// # Errors
/// [`Error::KindMismatch`] for losses of any other kind, for which it does not hold, even if all losses of
/// the sample are 0 or 1.
pub fn binomial(losses: LossSum, tolerance: Tolerance) -> Result<LogP, Error> {
    PValue::Binomial.check(losses.kind())?;
    Ok(LogP::of_sum(losses, tolerance, ln_bound))
}

pub(super) fn ln_bound(losses: UnitSum, delta: f64) -> f64 {
    log_cdf(losses.ceil, losses.examples, delta)
}
