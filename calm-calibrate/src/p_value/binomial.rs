use super::{LogP, PValue};
use crate::binomial_distribution::log_cdf;
use crate::{Error, LossKind, LossSum, Tolerance};

/// The exact p-value of binary losses, `P(X <= sum)` for X binomial with n trials of probability `delta`.
///
/// Fails for losses of any other kind, for which it does not hold, even if those of the sample are all 0 or 1.
pub fn binomial(losses: LossSum, tolerance: Tolerance) -> Result<LogP, Error> {
    if losses.kind() != LossKind::Binary {
        return Err(Error::KindMismatch { p_value: PValue::Binomial, kind: losses.kind() });
    }
    Ok(LogP::from_ln_bound(log_cdf(losses.ceil(), losses.examples(), tolerance.get())))
}
