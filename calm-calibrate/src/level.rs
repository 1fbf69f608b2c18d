use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The expected loss that is tolerated, strictly between 0 and 1: CALM's delta, alpha in Learn then Test.
///
/// At 0 no finite sample proves anything, and at 1 there is nothing to prove.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(into = "f64", try_from = "f64")]
pub struct Tolerance(f64);

/// The probability that the guarantee fails, strictly between 0 and 1: CALM's epsilon, delta in Learn then
/// Test.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(into = "f64", try_from = "f64")]
pub struct ErrorProbability(f64);

impl ErrorProbability {
    /// The paper's 0.05, which is the same in all of its experiments (section 5).
    pub const PAPER: Self = Self(0.05);

    /// Returns the level `epsilon / parts` of one of several tests that share the error probability.
    pub(crate) fn split(self, parts: usize) -> Self {
        Self(self.0 / parts as f64)
    }
}

macro_rules! impl_open_unit_interval {
    ($type:ident, $quantity:literal) => {
        impl $type {
            /// Takes a number.
            ///
            /// # Errors
            /// [`Error::OutOfRange`] unless `0 < value < 1`.
            pub fn new(value: f64) -> Result<Self, Error> {
                if value > 0.0 && value < 1.0 { Ok(Self(value)) } else { Err(Self::out_of_range(value)) }
            }

            /// The number itself.
            pub fn get(self) -> f64 {
                self.0
            }

            fn out_of_range(found: impl fmt::Display) -> Error {
                Error::OutOfRange { quantity: $quantity, range: "(0, 1)", found: found.to_string() }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                text.parse().map_err(|_| Self::out_of_range(format!("`{text}`"))).and_then(Self::new)
            }
        }

        impl TryFrom<f64> for $type {
            type Error = Error;

            fn try_from(value: f64) -> Result<Self, Error> {
                Self::new(value)
            }
        }

        impl From<$type> for f64 {
            fn from(value: $type) -> f64 {
                value.0
            }
        }
    };
}

impl_open_unit_interval!(Tolerance, "the tolerance delta");
impl_open_unit_interval!(ErrorProbability, "the error probability epsilon");
