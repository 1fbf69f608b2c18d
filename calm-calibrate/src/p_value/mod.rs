//! p-values of the hypothesis that the expected loss exceeds the tolerance, one file each.
//!
//! A small p-value is evidence that the loss is tolerable: a threshold is certified where its hypothesis is rejected. Each
//! of them is super-uniform, for every sample size: if the expected loss is `delta` or more, then
//! P(p <= epsilon) <= epsilon. All are computed as logarithms, because with many examples they fall far below the
//! smallest double.
//!
//! | name | for losses | remark |
//! |---|---|---|
//! | [`hoeffding`] | in `[0, 1]` | the paper's equation 9; needs the most examples by far |
//! | [`hoeffding_kl`] | in `[0, 1]` | Hoeffding's sharper form, never above the simple one |
//! | [`bentkus`] | in `[0, 1]` | sharper still unless the loss is close to zero |
//! | [`hoeffding_bentkus`] | in `[0, 1]` | the lesser of the two; what the paper uses (footnote 3) |
//! | [`binomial`] | 0 or 1 | exact; no other one is sharper for these |
//!
//! Which one to use is fixed before seeing the losses. The least of several is in general not a p-value;
//! Hoeffding-Bentkus is one because both parts bound the same probability.

mod bentkus;
mod binomial;
mod hoeffding;
mod hoeffding_bentkus;
mod hoeffding_kl;

use serde::{Deserialize, Serialize};

pub use self::bentkus::bentkus;
pub use self::binomial::binomial;
pub use self::hoeffding::hoeffding;
pub use self::hoeffding_bentkus::hoeffding_bentkus;
pub use self::hoeffding_kl::hoeffding_kl;
use crate::names::impl_names;
use crate::{Error, ErrorProbability, LossSum, Tolerance};

/// The choice of a p-value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum PValue {
    /// [`hoeffding`]
    Hoeffding,
    /// [`hoeffding_kl`]
    HoeffdingKl,
    /// [`binomial`]
    Binomial,
    /// [`bentkus`]
    Bentkus,
    /// [`hoeffding_bentkus`]
    HoeffdingBentkus,
}

impl_names!(
    PValue, "p-value",
    Hoeffding => "hoeffding",
    HoeffdingKl => "hoeffding-kl",
    Binomial => "binomial",
    Bentkus => "bentkus",
    HoeffdingBentkus => "hoeffding-bentkus",
);

impl PValue {
    /// The p-value of a sample. Fails if it does not hold for losses of the sample's kind.
    pub fn log_p(self, losses: LossSum, tolerance: Tolerance) -> Result<LogP, Error> {
        match self {
            PValue::Hoeffding => Ok(hoeffding(losses, tolerance)),
            PValue::HoeffdingKl => Ok(hoeffding_kl(losses, tolerance)),
            PValue::Binomial => binomial(losses, tolerance),
            PValue::Bentkus => Ok(bentkus(losses, tolerance)),
            PValue::HoeffdingBentkus => Ok(hoeffding_bentkus(losses, tolerance)),
        }
    }
}

/// The natural logarithm of a p-value: at most 0, never NaN.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(into = "f64", try_from = "f64")]
pub struct LogP(f64);

impl LogP {
    /// Fails unless `ln` is at most 0.
    pub fn from_ln(ln: f64) -> Result<Self, Error> {
        let found = || Error::OutOfRange { quantity: "log p", range: "[-inf, 0]", found: ln.to_string() };
        if ln <= 0.0 { Ok(Self(ln)) } else { Err(found()) }
    }

    /// Fails unless `p` is in `[0, 1]`.
    pub fn from_p(p: f64) -> Result<Self, Error> {
        let found = || Error::OutOfRange { quantity: "a p-value", range: "[0, 1]", found: p.to_string() };
        if (0.0..=1.0).contains(&p) { Ok(Self(p.ln())) } else { Err(found()) }
    }

    /// A bound on a probability, which may lie above 1 and then says nothing. Adding 0 turns -0 into 0.
    fn from_ln_bound(ln: f64) -> Self {
        Self(ln.min(0.0) + 0.0)
    }

    /// The logarithm itself.
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

impl TryFrom<f64> for LogP {
    type Error = Error;

    fn try_from(ln: f64) -> Result<Self, Error> {
        Self::from_ln(ln)
    }
}

impl From<LogP> for f64 {
    fn from(log_p: LogP) -> f64 {
        log_p.0
    }
}
