//! Procedures that decide which hypotheses to reject, given a p-value for each, in one file each.
//!
//! They keep the probability of any false rejection at most `epsilon` (family-wise error control).
//!
//! | name | certifies where | order |
//! |---|---|---|
//! | [`bonferroni`] | p <= epsilon / m | does not matter |
//! | [`holm`] | the k-th smallest p <= epsilon / (m - k + 1), and all smaller ones too | does not matter |
//! | [`fixed_sequence`] | p <= epsilon, up to the first failure | fixed before seeing the losses; the paper's algorithm 1 |
//! | [`multi_start`] | p <= epsilon / J, from each of J starts to its first failure | fixed before seeing the losses |
//! | [`graphical`] | p <= a level that rejected hypotheses hand on | fixed before seeing the losses |
//! | pareto ([`pareto_testing`](crate::pareto_testing())) | as the fixed sequence | learnt on one part of the examples, tested on the other |

mod bonferroni;
mod fixed_sequence;
mod graphical;
mod holm;
mod multi_start;

use std::fmt;
use std::str::FromStr;

use calm_names::UnknownName;
use serde::{Deserialize, Serialize};

pub use self::bonferroni::bonferroni;
pub use self::fixed_sequence::fixed_sequence;
pub use self::graphical::{Graph, graphical};
pub use self::holm::holm;
pub use self::multi_start::{even_starts, multi_start};
use crate::{Error, ErrorProbability, LogP, Split};

/// The choice of a family-wise procedure. One that is read from its name has the defaults given here.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "procedure", rename_all = "kebab-case")]
pub enum Procedure {
    /// The procedure [`bonferroni`].
    Bonferroni,
    /// The procedure [`holm`].
    Holm,
    /// The procedure [`fixed_sequence`].
    #[default]
    FixedSequence,
    /// The procedure [`multi_start`] from [`even_starts`].
    MultiStart {
        /// Number of starts, 4 by default.
        starts: usize,
    },
    /// The procedure [`graphical`].
    Graphical {
        /// The graph; [`Graph::fallback`] if there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        graph: Option<Graph>,
    },
    /// The procedure [`pareto_testing`](crate::pareto_testing()), with the threshold itself as the cost.
    Pareto {
        /// Which examples the sequence is learnt on, half of them by default.
        split: Split,
    },
}

impl Procedure {
    /// The names of all procedures.
    pub const NAMES: [&'static str; 6] =
        ["bonferroni", "holm", "fixed-sequence", "multi-start", "graphical", "pareto"];

    /// The procedure's name in flags and files.
    pub fn name(&self) -> &'static str {
        match self {
            Procedure::Bonferroni => "bonferroni",
            Procedure::Holm => "holm",
            Procedure::FixedSequence => "fixed-sequence",
            Procedure::MultiStart { .. } => "multi-start",
            Procedure::Graphical { .. } => "graphical",
            Procedure::Pareto { .. } => "pareto",
        }
    }

    /// Finds the indices of the rejected hypotheses, ascending.
    ///
    /// `log_p` is in the order of testing, which for [`Procedure::Pareto`] is the sequence that was learnt.
    ///
    /// # Errors
    /// [`Error::InvalidGraph`] if the graph of [`Procedure::Graphical`] is for another number of hypotheses.
    pub fn reject(&self, log_p: &[LogP], epsilon: ErrorProbability) -> Result<Vec<usize>, Error> {
        match self {
            Procedure::Bonferroni => Ok(bonferroni(log_p, epsilon)),
            Procedure::Holm => Ok(holm(log_p, epsilon)),
            Procedure::FixedSequence | Procedure::Pareto { .. } => Ok(fixed_sequence(log_p, epsilon)),
            Procedure::MultiStart { starts } => {
                Ok(multi_start(log_p, &even_starts(*starts, log_p.len()), epsilon))
            }
            Procedure::Graphical { graph } => match graph {
                Some(graph) => graphical(log_p, graph, epsilon),
                None => graphical(log_p, &Graph::fallback(log_p.len()), epsilon),
            },
        }
    }

    /// The level that a p-value has to reach first, for which bets are tuned.
    pub fn first_level(&self, hypotheses: usize, epsilon: ErrorProbability) -> ErrorProbability {
        match self {
            Procedure::Bonferroni | Procedure::Holm | Procedure::Graphical { graph: None } => {
                epsilon.split(hypotheses.max(1))
            }
            Procedure::MultiStart { starts } => epsilon.split((*starts).min(hypotheses).max(1)),
            Procedure::FixedSequence | Procedure::Graphical { .. } | Procedure::Pareto { .. } => epsilon,
        }
    }
}

impl fmt::Display for Procedure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Procedure {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Ok(match name {
            "bonferroni" => Procedure::Bonferroni,
            "holm" => Procedure::Holm,
            "fixed-sequence" => Procedure::FixedSequence,
            "multi-start" => Procedure::MultiStart { starts: 4 },
            "graphical" => Procedure::Graphical { graph: None },
            "pareto" => Procedure::Pareto { split: Split::default() },
            _ => return Err(UnknownName::new("procedure", name, Self::NAMES)),
        })
    }
}
