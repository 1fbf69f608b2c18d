use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::Error;

/// A random division of examples into two parts, which depends only on its fields and the number of examples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedSplit")]
pub struct Split {
    share: f64,
    seed: u64,
}

impl Split {
    /// Describes a division whose first part gets this share of the examples, rounded to a whole number.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] unless `0 < share < 1`.
    pub fn new(share: f64, seed: u64) -> Result<Self, Error> {
        if share > 0.0 && share < 1.0 {
            Ok(Self { share, seed })
        } else {
            Err(Error::OutOfRange {
                quantity: "the share of a split",
                range: "(0, 1)",
                found: share.to_string(),
            })
        }
    }

    /// The share of the first part, between 0 and 1.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// The seed of the division.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns the indices of the two parts, each in random order.
    ///
    /// That suits p-values that depend on the order.
    ///
    /// # Errors
    /// [`Error::TooFewToSplit`] if one of the parts would be empty.
    pub fn parts(&self, examples: usize) -> Result<(Vec<usize>, Vec<usize>), Error> {
        let mut first: Vec<usize> = (0..examples).collect();
        first.shuffle(&mut ChaCha8Rng::seed_from_u64(self.seed));
        let size = (self.share * examples as f64).round() as usize;
        if size == 0 || size == examples {
            return Err(Error::TooFewToSplit { examples });
        }
        let second = first.split_off(size);
        Ok((first, second))
    }

    /// Tells for each example whether it belongs to the first part.
    ///
    /// # Errors
    /// [`Error::TooFewToSplit`] if one of the parts would be empty.
    pub fn first_part(&self, examples: usize) -> Result<Vec<bool>, Error> {
        let mut is_first = vec![false; examples];
        self.parts(examples)?.0.into_iter().for_each(|index| is_first[index] = true);
        Ok(is_first)
    }
}

impl Default for Split {
    /// Divides into halves, with seed 0.
    fn default() -> Self {
        Self { share: 0.5, seed: 0 }
    }
}

/// A split as it is written in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedSplit {
    share: f64,
    seed: u64,
}

impl TryFrom<UncheckedSplit> for Split {
    type Error = Error;

    fn try_from(split: UncheckedSplit) -> Result<Self, Error> {
        Self::new(split.share, split.seed)
    }
}
