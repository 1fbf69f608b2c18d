//! The paper's protocol: how calibrations fare on random parts of the calibration examples, the rows of
//! `trials.csv`.
//!
//! Each trial calibrates on most of the calibration examples (the *pool*) and measures on the rest. The test
//! split has no part in it, so that it remains what nothing was chosen by.
//!
//! Two kinds of violations are counted, of which only the second says whether calibrations are right:
//!
//! * `test_violations`: the loss on the trial's own test examples is above delta. A right calibration may
//!   have more than `epsilon * trials` of them. These examples are few, so that their mean scatters; an easy
//!   part for calibration leaves a hard one for the test; and the trials draw from the same pool, so that an
//!   unlucky pool concerns all of them.
//! * `pool_violations`: the loss on the whole pool is above delta. Taken as all examples there are, the pool
//!   has its mean for an expected loss, which is what the guarantee is about, and the trials are independent
//!   draws from it. Their number scatters too: up to `accepted_violations` are in keeping with the
//!   probability `epsilon`. More of them mean a mistake; none mean little, because a part that is most of the
//!   pool rarely differs much from the whole.

use anyhow::Context;
use calm_calibrate::{
    ErrorProbability, LossTable, Procedure, Tolerance, Trial, TrialSplit, accepted_violations, run_trials,
};
use calm_core::PolicySpec;
use serde::Serialize;

use crate::config::{Objective, Plan, Series};
use crate::outputs::{Cost, SplitOutputs};
use crate::statistics::Guarantee;

/// Probability that a right calibration has more than the accepted violations.
const SURPRISE: ErrorProbability = ErrorProbability::PAPER;

/// A row of `trials.csv` after its guarantee: all trials of that. A trial that certifies nothing counts with
/// the full model.
///
/// Of each quantity there are the mean over the trials, the standard deviation (of these trials, divided by
/// their number) and the 5th and 95th percentile.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrialsRow {
    /// Examples that each trial calibrates on.
    pub calibration_examples: usize,
    /// Examples that each trial measures on.
    pub test_examples: usize,
    /// Number of trials.
    pub trials: usize,
    /// Trials that certified a threshold.
    pub certified: usize,
    /// The threshold.
    pub threshold_mean: f64,
    /// Standard deviation of the threshold.
    pub threshold_std: f64,
    /// 5th percentile of the threshold.
    pub threshold_p5: f64,
    /// 95th percentile of the threshold.
    pub threshold_p95: f64,
    /// Mean loss on the trial's test examples.
    pub test_loss_mean: f64,
    /// Standard deviation of the test loss.
    pub test_loss_std: f64,
    /// 5th percentile of the test loss.
    pub test_loss_p5: f64,
    /// 95th percentile of the test loss.
    pub test_loss_p95: f64,
    /// Mean exit layer of the tokens of the trial's test examples.
    pub average_layers_mean: f64,
    /// Standard deviation of the layers.
    pub average_layers_std: f64,
    /// 5th percentile of the layers.
    pub average_layers_p5: f64,
    /// 95th percentile of the layers.
    pub average_layers_p95: f64,
    /// Time of the full model on the trial's test examples divided by the time at the threshold.
    pub speedup_mean: f64,
    /// Standard deviation of the speed-up.
    pub speedup_std: f64,
    /// Trials whose test loss is above delta.
    pub test_violations: usize,
    /// Trials at whose threshold the mean loss of all calibration examples is above delta.
    pub pool_violations: usize,
    /// The most pool violations that are in keeping with epsilon: a right calibration has more with a
    /// probability of at most 0.05.
    pub accepted_violations: usize,
}

/// The divisions of `examples` calibration examples.
///
/// # Errors
/// There are too few examples, for the trials or for a procedure that divides them itself.
pub fn divide(plan: &Plan, examples: usize) -> anyhow::Result<Vec<TrialSplit>> {
    let splits = plan.trials.splits(examples).context("trials cannot divide the calibration examples")?;
    if let Procedure::Pareto { split } = plan.procedure {
        let of_a_trial = splits.first().map(|split| split.calibration.len());
        for examples in [Some(examples), of_a_trial].into_iter().flatten() {
            split.parts(examples).context("the pareto procedure cannot divide the calibration examples")?;
        }
    }
    Ok(splits)
}

/// The trials of each tolerance of `objective`. `losses` are those of the calibration examples at each
/// threshold.
pub(crate) fn repeat(
    plan: &Plan,
    objective: &Objective,
    series: &Series,
    calibration: &SplitOutputs<'_>,
    losses: Vec<Vec<f64>>,
    splits: &[TrialSplit],
) -> anyhow::Result<Vec<(Guarantee, TrialsRow)>> {
    let (Some(first_split), Some(&first_delta)) = (splits.first(), objective.deltas.first()) else {
        return Ok(Vec::new());
    };
    let table = LossTable::new(series.threshold_values(), losses)?;
    let options = plan.calibration_options(objective, first_delta);
    let by_delta = run_trials(&table, &options, &objective.deltas, splits)?;

    let full = &calibration.of(PolicySpec::full())?.costs;
    let costs = series.policies().map(|policy| Ok(&calibration.of(policy)?.costs));
    let costs = costs.collect::<anyhow::Result<Vec<_>>>()?;
    let row = |(delta, trials): (&Tolerance, Vec<Trial>)| {
        let costs_of = |trial: &Trial| trial.threshold_index.map_or(full, |index| costs[index]);
        let on_test = |costs: &[Cost], trial: &Trial| -> Cost {
            splits[trial.trial].test.iter().map(|&example| &costs[example]).sum()
        };
        let spread = |value: &dyn Fn(&Trial) -> f64| Spread::of(trials.iter().map(value).collect());
        let count = |holds: &dyn Fn(&Trial) -> bool| trials.iter().filter(|trial| holds(trial)).count();

        let threshold = spread(&|trial| trial.threshold_index.map_or(1.0, |index| table.thresholds()[index]));
        let test_loss = spread(&|trial| trial.test_loss);
        let layers = spread(&|trial| on_test(costs_of(trial), trial).average_layers());
        let speedup = spread(&|trial| on_test(full, trial).seconds / on_test(costs_of(trial), trial).seconds);
        let row = TrialsRow {
            calibration_examples: first_split.calibration.len(),
            test_examples: first_split.test.len(),
            trials: trials.len(),
            certified: count(&|trial| trial.threshold_index.is_some()),
            threshold_mean: threshold.mean,
            threshold_std: threshold.std,
            threshold_p5: threshold.p5,
            threshold_p95: threshold.p95,
            test_loss_mean: test_loss.mean,
            test_loss_std: test_loss.std,
            test_loss_p5: test_loss.p5,
            test_loss_p95: test_loss.p95,
            average_layers_mean: layers.mean,
            average_layers_std: layers.std,
            average_layers_p5: layers.p5,
            average_layers_p95: layers.p95,
            speedup_mean: speedup.mean,
            speedup_std: speedup.std,
            test_violations: count(&|trial| trial.test_loss > delta.get()),
            pool_violations: count(&|trial| trial.pool_loss > delta.get()),
            accepted_violations: accepted_violations(trials.len(), plan.epsilon, SURPRISE),
        };
        (Guarantee::new(plan, objective, *delta, series), row)
    };
    Ok(objective.deltas.iter().zip(by_delta).map(row).collect())
}

/// How values are spread.
#[derive(Debug, Clone, Copy)]
struct Spread {
    mean: f64,
    std: f64,
    p5: f64,
    p95: f64,
}

impl Spread {
    /// Describes how at least one value is spread.
    fn of(mut values: Vec<f64>) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        values.sort_by(f64::total_cmp);
        Self { mean, std: variance.sqrt(), p5: quantile(&values, 0.05), p95: quantile(&values, 0.95) }
    }
}

/// A quantile of ascending values, on the line between the two values next to it.
fn quantile(values: &[f64], share: f64) -> f64 {
    let place = share * (values.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    values[below] + (place - place.floor()) * (values[above] - values[below])
}
