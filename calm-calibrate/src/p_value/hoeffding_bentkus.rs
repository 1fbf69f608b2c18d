use super::{LogP, bentkus, hoeffding_kl};
use crate::{LossSum, Tolerance};

/// The lesser of [`hoeffding_kl`] and [`bentkus`] (Angelopoulos et al. 2021, proposition 1; CALM's footnote 3).
///
/// No correction for taking the lesser: both bound the same probability, as a function of the sum alone. Without any
/// loss Hoeffding's part is the lesser, by a factor e.
pub fn hoeffding_bentkus(losses: LossSum, tolerance: Tolerance) -> LogP {
    let (hoeffding, bentkus) = (hoeffding_kl(losses, tolerance), bentkus(losses, tolerance));
    if hoeffding < bentkus { hoeffding } else { bentkus }
}
