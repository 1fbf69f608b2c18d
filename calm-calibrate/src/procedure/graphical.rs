use serde::{Deserialize, Serialize};

use crate::{Error, ErrorProbability, LogP};

/// By how much a sum of weights may exceed 1 because of rounding.
const ROUNDING: f64 = 1e-9;

/// How the error probability is shared out among hypotheses, and where the share of a rejected one goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedGraph")]
pub struct Graph {
    weights: Vec<f64>,
    transitions: Vec<Vec<f64>>,
}

impl Graph {
    /// Describes how shares of the level are given and handed on.
    ///
    /// Hypothesis i is tested at `weights[i] * epsilon` first; once it is rejected, the fraction
    /// `transitions[i][j]` of its level goes to hypothesis j.
    ///
    /// # Errors
    /// [`Error::InvalidGraph`] unless all numbers are in `[0, 1]`, the weights and each row of transitions
    /// sum to at most 1, and no hypothesis gives to itself.
    pub fn new(weights: Vec<f64>, transitions: Vec<Vec<f64>>) -> Result<Self, Error> {
        let hypotheses = weights.len();
        let wrong = |message: String| Err(Error::InvalidGraph { message });
        if transitions.len() != hypotheses {
            return wrong(format!("{hypotheses} weights but {} rows of transitions", transitions.len()));
        }
        let rows = std::iter::once(("the weights".to_owned(), &weights));
        let rows = rows.chain(transitions.iter().enumerate().map(|(i, row)| (format!("row {i}"), row)));
        for (name, row) in rows {
            if row.len() != hypotheses {
                return wrong(format!("{name} has {} entries instead of {hypotheses}", row.len()));
            }
            if let Some(entry) = row.iter().find(|entry| !(0.0..=1.0).contains(*entry)) {
                return wrong(format!("{name} has the entry {entry}, which is not in [0, 1]"));
            }
            let sum: f64 = row.iter().sum();
            if sum > 1.0 + ROUNDING {
                return wrong(format!("{name} sums to {sum}, which is more than 1"));
            }
        }
        if let Some(index) = (0..hypotheses).find(|&index| transitions[index][index] != 0.0) {
            return wrong(format!("hypothesis {index} gives to itself"));
        }
        Ok(Self { weights, transitions })
    }

    /// The graph of the fallback procedure (Wiens 2003).
    ///
    /// Every hypothesis has an equal share, and the share of a rejected one goes to the next. The order is
    /// that of a fixed sequence, but a failure does not end it.
    pub fn fallback(hypotheses: usize) -> Self {
        let weights = vec![1.0 / hypotheses.max(1) as f64; hypotheses];
        Self { weights, transitions: Self::chain(hypotheses) }
    }

    /// The graph of [`fixed_sequence`](super::fixed_sequence()): the first hypothesis has all, and each hands
    /// it on to the next.
    pub fn fixed_sequence(hypotheses: usize) -> Self {
        let weights = (0..hypotheses).map(|index| if index == 0 { 1.0 } else { 0.0 }).collect();
        Self { weights, transitions: Self::chain(hypotheses) }
    }

    /// The graph of [`holm`](super::holm()): all have equal shares, and hand them on equally.
    pub fn holm(hypotheses: usize) -> Self {
        let handed_on = 1.0 / hypotheses.saturating_sub(1).max(1) as f64;
        let entry = |i, j| if i == j { 0.0 } else { handed_on };
        let transitions = (0..hypotheses).map(|i| (0..hypotheses).map(|j| entry(i, j)).collect()).collect();
        Self { weights: vec![1.0 / hypotheses.max(1) as f64; hypotheses], transitions }
    }

    /// The number of hypotheses.
    pub fn hypotheses(&self) -> usize {
        self.weights.len()
    }

    fn chain(hypotheses: usize) -> Vec<Vec<f64>> {
        let entry = |i, j| if j == i + 1 { 1.0 } else { 0.0 };
        (0..hypotheses).map(|i| (0..hypotheses).map(|j| entry(i, j)).collect()).collect()
    }
}

/// Sequentially rejective graphical testing (Bretz, Maurer, Brannath and Posch 2009).
///
/// Any hypothesis may be rejected whose p-value is at most its level; its level then goes along the graph,
/// and the graph closes over the gap. The hypotheses that are rejected in the end do not depend on which one
/// is taken first.
///
/// # Errors
/// [`Error::InvalidGraph`] for a graph that is for another number of hypotheses.
pub fn graphical(log_p: &[LogP], graph: &Graph, epsilon: ErrorProbability) -> Result<Vec<usize>, Error> {
    let hypotheses = log_p.len();
    if graph.hypotheses() != hypotheses {
        let message = format!("{} hypotheses instead of {hypotheses}", graph.hypotheses());
        return Err(Error::InvalidGraph { message });
    }
    let Graph { mut weights, mut transitions } = graph.clone();
    let mut remaining: Vec<usize> = (0..hypotheses).collect();
    // Without a share of the level there is no test, even for a p-value of 0.
    let passes =
        |index: usize, weight: f64| weight > 0.0 && log_p[index].ln() <= (weight * epsilon.get()).ln();
    while let Some(place) = remaining.iter().position(|&index| passes(index, weights[index])) {
        let rejected = remaining.remove(place);
        for &j in &remaining {
            weights[j] += weights[rejected] * transitions[rejected][j];
        }
        let before = transitions.clone();
        for &j in &remaining {
            let kept = 1.0 - before[j][rejected] * before[rejected][j];
            for &k in remaining.iter().filter(|&&k| k != j) {
                let through = before[j][k] + before[j][rejected] * before[rejected][k];
                // Level that goes round in a circle and cannot get out is given to nobody.
                transitions[j][k] = if kept > 0.0 { through / kept } else { 0.0 };
            }
            // A small `kept` magnifies roundings, but nobody may give more than there is.
            let given: f64 = remaining.iter().filter(|&&k| k != j).map(|&k| transitions[j][k]).sum();
            if given > 1.0 {
                remaining.iter().for_each(|&k| transitions[j][k] /= given);
            }
        }
    }
    Ok((0..hypotheses).filter(|index| !remaining.contains(index)).collect())
}

/// A graph as it is written in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedGraph {
    weights: Vec<f64>,
    transitions: Vec<Vec<f64>>,
}

impl TryFrom<UncheckedGraph> for Graph {
    type Error = Error;

    fn try_from(graph: UncheckedGraph) -> Result<Self, Error> {
        Self::new(graph.weights, graph.transitions)
    }
}
