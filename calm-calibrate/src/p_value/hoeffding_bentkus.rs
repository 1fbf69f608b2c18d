use super::{LogP, bentkus, hoeffding_kl};
use crate::loss_sum::UnitSum;
use crate::{LossSum, Tolerance};

/// The lesser of [`hoeffding_kl`](super::hoeffding_kl()) and [`bentkus`](super::bentkus()).
///
/// See Angelopoulos et al. 2021, proposition 1, and CALM's footnote 3.
///
/// Taking the lesser needs no correction: both bound the same probability, as a function of the sum alone. If
/// no loss occurs Hoeffding's part is the lesser, by a factor e.
pub fn hoeffding_bentkus(losses: LossSum, tolerance: Tolerance) -> LogP {
    LogP::of_sum(losses, tolerance, ln_bound)
}

pub(super) fn ln_bound(losses: UnitSum, delta: f64) -> f64 {
    hoeffding_kl::ln_bound(losses, delta).min(bentkus::ln_bound(losses, delta))
}
