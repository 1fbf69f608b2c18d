//! Upper confidence bounds, which are the least tolerances at which a sample would be certified.

use crate::p_value::{Bets, Capital, Horizon, Moments, PValue};
use crate::{Error, ErrorProbability, LossKind, LossSum};

impl PValue {
    /// Finds a bound that the expected loss lies below, except with probability `epsilon`.
    ///
    /// It is the dual of the p-value, which is at most `epsilon` for just those tolerances that are not below
    /// the bound.
    ///
    /// For binary losses and [`PValue::Binomial`] it is the bound of Clopper and Pearson. It can be negative
    /// for differences.
    ///
    /// # Errors
    /// The p-value does not hold for the losses' kind, or needs more than their sum.
    pub fn upper_bound_of_sum(self, losses: LossSum, epsilon: ErrorProbability) -> Result<f64, Error> {
        self.check(losses.kind())?;
        let ln_bound = self.ln_bound_of_sum()?;
        let sum = losses.on_unit_interval();
        let bound = least_rejected(0.0, 1.0, epsilon, |delta| ln_bound(sum, delta));
        // Scales back from the unit interval, to which differences were rescaled.
        let least = losses.kind().least();
        Ok(least + bound * (1.0 - least))
    }

    /// Finds a bound for any p-value, from losses in the order of the data.
    ///
    /// It is that of [`upper_bound_of_sum`](Self::upper_bound_of_sum) otherwise. The bets of
    /// [`PValue::Betting`] are tuned for `epsilon`.
    ///
    /// # Errors
    /// A loss lies outside the range of `kind`, there are no losses, or the p-value does not hold for `kind`.
    pub fn upper_bound(
        self,
        losses: &[f64],
        kind: LossKind,
        epsilon: ErrorProbability,
    ) -> Result<f64, Error> {
        self.check(kind)?;
        let sum = LossSum::of(losses, kind)?;
        match self {
            PValue::Betting => {
                let mut bets = vec![0.0; losses.len()];
                Bets::new(epsilon, Horizon::Sample(losses.len())).bet_on(losses, &mut bets);
                Ok(least_rejected(kind.least(), 1.0, epsilon, |delta| {
                    let mut capital = Capital::new(delta);
                    capital.pay(&bets, losses);
                    -capital.ln_largest()
                }))
            }
            PValue::Asymptotic => {
                let mut moments = Moments::default();
                moments.push(losses);
                Ok(least_rejected(kind.least(), 1.0, epsilon, |delta| moments.ln_bound(delta)))
            }
            _ => self.upper_bound_of_sum(sum, epsilon),
        }
    }
}

/// Finds the least number between `low` and `high` at which `ln_p`, which falls, is at most `ln epsilon`.
///
/// It is `high` if there is none.
fn least_rejected(low: f64, high: f64, epsilon: ErrorProbability, ln_p: impl Fn(f64) -> f64) -> f64 {
    let rejected = |delta: f64| ln_p(delta) <= epsilon.get().ln();
    let (mut accepted_at, mut rejected_at) = (low, high);
    // This is a double's worth of halvings, unless the bound is smaller than any loss that matters.
    for _ in 0..128 {
        let middle = 0.5 * (accepted_at + rejected_at);
        if middle <= accepted_at || middle >= rejected_at {
            break;
        }
        if rejected(middle) { rejected_at = middle } else { accepted_at = middle }
    }
    rejected_at
}
