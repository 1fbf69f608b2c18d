//! Which hypotheses to reject, given a p-value for each, so that the probability of any false rejection is at most
//! `epsilon` (family-wise error control). One file each.
//!
//! | name | certifies where | order |
//! |---|---|---|
//! | [`bonferroni`] | p <= epsilon / m | does not matter |
//! | [`fixed_sequence`] | p <= epsilon, up to the first failure | fixed before seeing the losses; the paper's algorithm 1 |

mod bonferroni;
mod fixed_sequence;

use serde::{Deserialize, Serialize};

pub use self::bonferroni::bonferroni;
pub use self::fixed_sequence::fixed_sequence;
use crate::names::impl_names;
use crate::{ErrorProbability, LogP};

/// The choice of a family-wise procedure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Procedure {
    /// [`bonferroni`]
    Bonferroni,
    /// [`fixed_sequence`]
    FixedSequence,
}

impl_names!(Procedure, "procedure", Bonferroni => "bonferroni", FixedSequence => "fixed-sequence");

impl Procedure {
    /// The indices of the rejected hypotheses, ascending. `log_p` is in the order of testing.
    pub fn reject(self, log_p: &[LogP], epsilon: ErrorProbability) -> Vec<usize> {
        match self {
            Procedure::Bonferroni => bonferroni(log_p, epsilon),
            Procedure::FixedSequence => fixed_sequence(log_p, epsilon),
        }
    }
}
