//! The p-values of the hypothesis that the expected loss exceeds the tolerance, in one file each.
//!
//! A small p-value is evidence that the loss is tolerable: a threshold is certified if its hypothesis is
//! rejected. Each p-value is super-uniform for every sample size: if the expected loss is `delta` or more,
//! then P(p <= epsilon) <= epsilon. All of them are computed as logarithms, because with many examples they
//! fall far below the smallest double.
//!
//! | name | for losses | remark |
//! |---|---|---|
//! | [`hoeffding`] | any | the paper's equation 9; needs the most examples by far |
//! | [`hoeffding_kl`] | any | Hoeffding's sharper form, never above the simple one |
//! | [`bentkus`] | any | sharper still unless the loss is close to zero |
//! | [`hoeffding_bentkus`] | any | the lesser of the two; what the paper uses (footnote 3) |
//! | [`binomial`] | 0 or 1 | exact; no other one is sharper for these |
//! | [`betting`] | any, in the order of the data | the sharpest for fractional losses and for differences |
//! | [`asymptotic`] | any | **holds only in the limit** of many examples; for comparison |
//!
//! The first four are made for losses in `[0, 1]`. They see differences in `[-1, 1]` rescaled to
//! `(loss + 1) / 2`, with the tolerance `(delta + 1) / 2`, which is valid and nearly powerless; betting uses
//! differences as they are.
//!
//! The p-value to use is fixed before seeing the losses. The least of several is in general not a p-value;
//! Hoeffding-Bentkus is one because both parts bound the same probability. The greatest of several is always
//! one ([`LogP::of_all`]), and serves to say that every one of these risks is tolerable.

mod asymptotic;
mod bentkus;
mod betting;
mod binomial;
mod hoeffding;
mod hoeffding_bentkus;
mod hoeffding_kl;

use calm_names::names;
use serde::{Deserialize, Serialize};

pub(crate) use self::asymptotic::Moments;
pub use self::asymptotic::asymptotic;
pub use self::bentkus::bentkus;
pub use self::betting::betting;
pub(crate) use self::betting::{Bets, Capital, Horizon, PIECE};
pub use self::binomial::binomial;
pub use self::hoeffding::hoeffding;
pub use self::hoeffding_bentkus::hoeffding_bentkus;
pub use self::hoeffding_kl::hoeffding_kl;
use crate::evidence::{Evidence, SampleDesign};
use crate::loss_sum::UnitSum;
use crate::{Error, ErrorProbability, LossKind, LossSum, Tolerance};

/// The choice of a p-value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum PValue {
    /// The p-value [`hoeffding`].
    Hoeffding,
    /// The p-value [`hoeffding_kl`].
    HoeffdingKl,
    /// The p-value [`binomial`].
    Binomial,
    /// The p-value [`bentkus`].
    Bentkus,
    /// The p-value [`hoeffding_bentkus`].
    HoeffdingBentkus,
    /// The p-value [`betting`].
    Betting,
    /// The p-value [`asymptotic`].
    Asymptotic,
}

names!(PValue, "p-value", {
    Hoeffding => "hoeffding",
    HoeffdingKl => "hoeffding-kl",
    Binomial => "binomial",
    Bentkus => "bentkus",
    HoeffdingBentkus => "hoeffding-bentkus",
    Betting => "betting",
    Asymptotic => "asymptotic",
});

/// A bound on ln p as a function of a sum on the unit interval and a tolerance.
pub(crate) type SumBound = fn(UnitSum, f64) -> f64;

impl PValue {
    /// The p-value to use unless there is a reason for another: exact for binary losses, betting for all
    /// others.
    ///
    /// It follows from the declared kind and not from the values.
    pub fn default_for(kind: LossKind) -> Self {
        match kind {
            LossKind::Binary => PValue::Binomial,
            LossKind::UnitInterval | LossKind::Difference => PValue::Betting,
        }
    }

    /// Checks that this p-value holds for losses of this kind.
    ///
    /// # Errors
    /// [`Error::KindMismatch`]
    pub fn check(self, kind: LossKind) -> Result<(), Error> {
        if self == PValue::Binomial && kind != LossKind::Binary {
            return Err(Error::KindMismatch { p_value: self, kind });
        }
        Ok(())
    }

    /// Computes the p-value of a sample of which only the sum is known.
    ///
    /// # Errors
    /// The p-value does not hold for losses of the sample's kind, or needs every loss.
    pub fn of_sum(self, losses: LossSum, tolerance: Tolerance) -> Result<LogP, Error> {
        self.check(losses.kind())?;
        Ok(LogP::of_sum(losses, tolerance, self.ln_bound_of_sum()?))
    }

    /// Computes the p-value of a sample in the order of the data.
    ///
    /// The bets of [`PValue::Betting`] are tuned for the level `tuned_for`; the other p-values make no use of
    /// it.
    ///
    /// # Errors
    /// A loss lies outside the range of `kind`, there are no losses, or the p-value does not hold for `kind`.
    pub fn of_losses(
        self,
        losses: &[f64],
        kind: LossKind,
        tolerance: Tolerance,
        tuned_for: ErrorProbability,
    ) -> Result<LogP, Error> {
        let design = SampleDesign { p_value: self, loss_kind: kind, examples: losses.len(), tuned_for };
        Evidence::of(losses, &design, tolerance)?.log_p(0)
    }

    /// Whether the p-value needs nothing but the sum of the losses.
    pub fn needs_only_the_sum(self) -> bool {
        self.ln_bound_of_sum().is_ok()
    }

    pub(crate) fn ln_bound_of_sum(self) -> Result<SumBound, Error> {
        match self {
            PValue::Hoeffding => Ok(hoeffding::ln_bound),
            PValue::HoeffdingKl => Ok(hoeffding_kl::ln_bound),
            PValue::Binomial => Ok(binomial::ln_bound),
            PValue::Bentkus => Ok(bentkus::ln_bound),
            PValue::HoeffdingBentkus => Ok(hoeffding_bentkus::ln_bound),
            PValue::Betting | PValue::Asymptotic => Err(Error::NeedsLosses { p_value: self }),
        }
    }
}

/// The natural logarithm of a p-value: at most 0, never NaN.
///
/// In JSON it is a number, or null for minus infinity, for which JSON has no number.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(into = "Option<f64>", try_from = "Option<f64>")]
pub struct LogP(f64);

impl LogP {
    /// Takes a logarithm.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] unless `ln` is at most 0.
    pub fn from_ln(ln: f64) -> Result<Self, Error> {
        let found = || Error::OutOfRange { quantity: "log p", range: "[-inf, 0]", found: ln.to_string() };
        if ln <= 0.0 { Ok(Self(ln)) } else { Err(found()) }
    }

    /// Takes a p-value.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] unless `p` is in `[0, 1]`.
    pub fn from_p(p: f64) -> Result<Self, Error> {
        let found = || Error::OutOfRange { quantity: "a p-value", range: "[0, 1]", found: p.to_string() };
        if (0.0..=1.0).contains(&p) { Ok(Self(p.ln())) } else { Err(found()) }
    }

    /// Takes an e-value, given as its logarithm: 1 over it is a p-value (Markov's inequality).
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for NaN.
    pub fn from_ln_e_value(ln_e_value: f64) -> Result<Self, Error> {
        if ln_e_value.is_nan() { Self::from_ln(ln_e_value) } else { Ok(Self::from_ln_bound(-ln_e_value)) }
    }

    /// The p-value of the hypothesis that at least one of several risks is not tolerable.
    ///
    /// It is the greatest of their p-values, whatever their dependence (intersection-union). Rejecting it
    /// certifies all of them. It is 1 if there are none.
    pub fn of_all(log_p: impl IntoIterator<Item = LogP>) -> Self {
        let greatest = log_p.into_iter().map(LogP::ln).reduce(f64::max);
        Self(greatest.unwrap_or(0.0))
    }

    /// Takes a bound on a probability. A bound above 1 says nothing. Adding 0 turns -0 into 0.
    pub(crate) fn from_ln_bound(ln: f64) -> Self {
        Self(ln.min(0.0) + 0.0)
    }

    fn of_sum(losses: LossSum, tolerance: Tolerance, ln_bound: SumBound) -> Self {
        let least = losses.kind().least();
        let delta = (tolerance.get() - least) / (1.0 - least);
        Self::from_ln_bound(ln_bound(losses.on_unit_interval(), delta))
    }

    /// The logarithm itself: at most 0, minus infinity for a p-value of 0.
    pub fn ln(self) -> f64 {
        self.0
    }

    /// The p-value; 0 if it is below the smallest double.
    pub fn p(self) -> f64 {
        self.0.exp()
    }

    /// Whether the hypothesis is rejected at this level: `p <= level`.
    pub fn rejected_at(self, level: ErrorProbability) -> bool {
        self.0 <= level.get().ln()
    }
}

impl TryFrom<Option<f64>> for LogP {
    type Error = Error;

    fn try_from(ln: Option<f64>) -> Result<Self, Error> {
        Self::from_ln(ln.unwrap_or(f64::NEG_INFINITY))
    }
}

impl From<LogP> for Option<f64> {
    fn from(log_p: LogP) -> Option<f64> {
        log_p.0.is_finite().then_some(log_p.0)
    }
}
