//! Pareto testing: several risks of many configurations, tested in a sequence that is learnt.

use crate::evidence::{Evidence, SampleDesign};
use crate::procedure::fixed_sequence;
use crate::{Error, ErrorProbability, LogP, LossKind, PValue, Split, Tolerance};

/// One risk that has to be tolerable.
///
/// Examples are the distance to the full model's outputs, or how much longer they are.
#[derive(Debug, Clone, Copy)]
pub struct Risk<'a> {
    /// The losses, as `losses[configuration][example]`.
    pub losses: &'a [Vec<f64>],
    /// The declared kind of the losses.
    pub loss_kind: LossKind,
    /// The p-value to compute for each configuration.
    pub p_value: PValue,
    /// The tolerated expected loss.
    pub delta: Tolerance,
}

/// Something to save, such as layers or seconds. Less is better; there is no guarantee for it.
#[derive(Debug, Clone, Copy)]
pub enum Cost<'a> {
    /// The costs, as `costs[configuration]`, are known without any example.
    Known(&'a [f64]),
    /// The costs are measured, as `costs[configuration][example]`.
    Measured(&'a [Vec<f64>]),
}

/// The result of [`pareto_testing`]. Configurations are named by their index.
#[derive(Debug, Clone, PartialEq)]
pub struct ParetoCalibration {
    /// The configurations that were tested, in this order: the Pareto front on the examples of the first
    /// part.
    pub sequence: Vec<usize>,
    /// The configurations that keep every risk below its tolerance.
    ///
    /// All of them together do so with probability `1 - epsilon`.
    pub certified: Vec<usize>,
    /// The certified configuration with the least first cost; `None` if nothing was certified.
    pub best: Option<usize>,
    /// The greatest p-value of the risks on the second part, for each configuration.
    ///
    /// Those of configurations outside `sequence`, or after its first failure, are for information.
    pub log_p_values: Vec<LogP>,
    /// Number of examples of the second part.
    pub examples: usize,
}

/// Certifies configurations of several parameters for several risks at once, and picks the cheapest.
///
/// Parameters may be, for example, threshold, decay and measure. The method is that of Laufer-Goldshtein,
/// Fisch, Barzilay and Jaakkola 2023.
///
/// On the first part of the examples it finds the configurations that are not worse than another in every
/// risk and every cost, and puts those first that pass most easily. On the second part, on which that order
/// does not depend, it tests them as a fixed sequence, each by the greatest of its risks' p-values. So a
/// large grid costs no level, and the sequence avoids what fails early.
///
/// # Errors
/// There is no risk, cost or configuration, counts differ, a part would be empty, a loss lies outside the
/// range of its kind, or a cost is not a number.
pub fn pareto_testing(
    risks: &[Risk<'_>],
    costs: &[Cost<'_>],
    epsilon: ErrorProbability,
    split: Split,
) -> Result<ParetoCalibration, Error> {
    if costs.is_empty() {
        return Err(Error::NoCosts);
    }
    let first_risk = risks.first().ok_or(Error::NoThresholds)?;
    let configurations = first_risk.losses.len();
    let examples = first_risk.losses.first().ok_or(Error::NoThresholds)?.len();
    let is_selection = split.first_part(examples)?;
    let parts = |values: &[f64]| -> Result<(Vec<f64>, Vec<f64>), Error> {
        if values.len() != examples {
            return Err(Error::UnequalCounts { what: "examples", expected: examples, found: values.len() });
        }
        let of_part = |part: bool| {
            let in_part = |(&value, &is_selection): (&f64, &bool)| (is_selection == part).then_some(value);
            values.iter().zip(&is_selection).filter_map(in_part).collect()
        };
        Ok((of_part(true), of_part(false)))
    };

    let mut objectives = vec![Vec::new(); configurations];
    let mut selection_log_p = vec![Vec::new(); configurations];
    let mut testing_log_p = vec![Vec::new(); configurations];
    for risk in risks {
        check_count(risk.losses.len(), configurations)?;
        for (configuration, losses) in risk.losses.iter().enumerate() {
            risk.loss_kind.check(losses, 0)?;
            let (selection, testing) = parts(losses)?;
            let evidence = |losses: &[f64]| {
                let design = SampleDesign {
                    p_value: risk.p_value,
                    loss_kind: risk.loss_kind,
                    examples: losses.len(),
                    tuned_for: epsilon,
                };
                Evidence::of(losses, &design, risk.delta)
            };
            let selection = evidence(&selection)?;
            objectives[configuration].push(selection.mean()?);
            selection_log_p[configuration].push(selection.log_p(0)?);
            testing_log_p[configuration].push(evidence(&testing)?.log_p(0)?);
        }
    }
    let mut first_costs = Vec::new();
    for (cost_index, cost) in costs.iter().enumerate() {
        let means = match cost {
            Cost::Known(costs) => costs.to_vec(),
            Cost::Measured(costs) => {
                let mean = |costs: &Vec<f64>| {
                    let (selection, _) = parts(costs)?;
                    Ok(selection.iter().sum::<f64>() / selection.len() as f64)
                };
                costs.iter().map(mean).collect::<Result<_, Error>>()?
            }
        };
        check_count(means.len(), configurations)?;
        if let Some(&cost) = means.iter().find(|cost| !cost.is_finite()) {
            let range = "(-inf, inf)";
            return Err(Error::OutOfRange { quantity: "a cost", range, found: cost.to_string() });
        }
        objectives.iter_mut().zip(&means).for_each(|(objectives, &mean)| objectives.push(mean));
        if cost_index == 0 {
            first_costs = means;
        }
    }

    let selection_log_p: Vec<LogP> = selection_log_p.into_iter().map(LogP::of_all).collect();
    let log_p_values: Vec<LogP> = testing_log_p.into_iter().map(LogP::of_all).collect();
    let sequence = pareto_sequence(&objectives, &selection_log_p);
    let tested: Vec<LogP> = sequence.iter().map(|&configuration| log_p_values[configuration]).collect();
    let certified: Vec<usize> =
        fixed_sequence(&tested, epsilon).into_iter().map(|place| sequence[place]).collect();
    let best = certified.iter().copied().min_by(|&a, &b| first_costs[a].total_cmp(&first_costs[b]));
    let examples = is_selection.iter().filter(|&&is_selection| !is_selection).count();
    Ok(ParetoCalibration { sequence, certified, best, log_p_values, examples })
}

/// Finds the indices of the points that no other point dominates.
///
/// A point dominates another if it is not greater in any objective and less in one. Equal points all stay.
pub fn pareto_front(objectives: &[Vec<f64>]) -> Vec<usize> {
    let dominates =
        |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| a <= b) && a.iter().zip(b).any(|(a, b)| a < b);
    (0..objectives.len())
        .filter(|&point| !objectives.iter().any(|other| dominates(other, &objectives[point])))
        .collect()
}

/// Sorts the Pareto front by p-value, the smallest one first.
///
/// Of equal ones, the one with the greatest last objective, which is a cost, comes first.
pub(crate) fn pareto_sequence(objectives: &[Vec<f64>], log_p: &[LogP]) -> Vec<usize> {
    let mut front = pareto_front(objectives);
    let cost = |index: usize| objectives[index].last().copied().unwrap_or(0.0);
    front.sort_by(|&a, &b| log_p[a].ln().total_cmp(&log_p[b].ln()).then_with(|| cost(b).total_cmp(&cost(a))));
    front
}

fn check_count(found: usize, expected: usize) -> Result<(), Error> {
    if found == expected {
        Ok(())
    } else {
        Err(Error::UnequalCounts { what: "configurations", expected, found })
    }
}
