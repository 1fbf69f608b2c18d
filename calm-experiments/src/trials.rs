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
    ErrorProbability, LossTable, Procedure, Tolerance, Trial, accepted_violations, run_trial,
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
    /// Examples that each trial calibrates on, or groups of them.
    pub calibration_examples: usize,
    /// Examples that each trial measures on, or groups of them.
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

/// Fails where so many calibration examples, or groups of them, cannot be divided, which is so for all trials
/// or for none.
///
/// # Errors
/// There are too few examples, for the trials or for a procedure that divides them itself.
pub fn check_division(plan: &Plan, examples: usize) -> anyhow::Result<()> {
    let mut divided = vec![examples];
    if plan.trials.trials > 0 {
        let split =
            plan.trials.split(0, examples).context("trials cannot divide the calibration examples")?;
        divided.push(split.calibration.len());
    }
    if let Procedure::Pareto { split } = plan.procedure {
        for examples in divided {
            split.parts(examples).context("the pareto procedure cannot divide the calibration examples")?;
        }
    }
    Ok(())
}

/// The trials of each tolerance of `objective`. `losses` are those of the groups of calibration examples at
/// each threshold. Groups are divided anew for each trial, and of a trial only a few numbers are kept.
pub(crate) fn repeat(
    plan: &Plan,
    objective: &Objective,
    series: &Series,
    calibration: &SplitOutputs<'_>,
    losses: Vec<Vec<f64>>,
) -> anyhow::Result<Vec<(Guarantee, TrialsRow)>> {
    let Some(&first_delta) = objective.deltas.first() else { return Ok(Vec::new()) };
    if plan.trials.trials == 0 {
        return Ok(Vec::new());
    }
    let table = LossTable::new(series.levels(calibration.num_layers), losses)?;
    let options = plan.calibration_options(objective, first_delta);
    let groups = &calibration.dataset.groups;
    let full = &groups.sums(&calibration.of(PolicySpec::full())?.costs);
    let costs = series.policies().map(|policy| Ok(groups.sums(&calibration.of(policy)?.costs)));
    let costs = costs.collect::<anyhow::Result<Vec<_>>>()?;

    let mut by_delta: Vec<Trials> = objective.deltas.iter().map(|&delta| Trials::new(delta)).collect();
    for trial in 0..plan.trials.trials {
        let split = plan.trials.split(trial, table.examples())?;
        let on_test = |costs: &[Cost]| -> Cost { split.test.iter().map(|&example| &costs[example]).sum() };
        for (outcome, trials) in
            run_trial(&table, &options, &objective.deltas, &split)?.iter().zip(&mut by_delta)
        {
            let costs = outcome.threshold_index.map_or(full, |index| &costs[index]);
            let threshold = outcome.threshold_index.map_or(1.0, |index| series.thresholds()[index]);
            trials.push(outcome, threshold, on_test(costs), on_test(full));
        }
    }
    let parts = plan.trials.split(0, table.examples())?;
    let row = |trials: Trials| {
        let guarantee = Guarantee::new(plan, objective, trials.delta, series);
        (guarantee, trials.row(parts.calibration.len(), parts.test.len(), plan.epsilon))
    };
    Ok(by_delta.into_iter().map(row).collect())
}

/// What is kept of the trials for one tolerance.
struct Trials {
    delta: Tolerance,
    thresholds: Vec<f64>,
    test_losses: Vec<f64>,
    layers: Vec<f64>,
    speedups: Vec<f64>,
    certified: usize,
    test_violations: usize,
    pool_violations: usize,
}

impl Trials {
    fn new(delta: Tolerance) -> Self {
        let (thresholds, test_losses, layers, speedups) = Default::default();
        Self {
            delta,
            thresholds,
            test_losses,
            layers,
            speedups,
            certified: 0,
            test_violations: 0,
            pool_violations: 0,
        }
    }

    /// Adds a trial with what its test examples took at its threshold and with the full model.
    fn push(&mut self, trial: &Trial, threshold: f64, cost: Cost, full: Cost) {
        self.thresholds.push(threshold);
        self.test_losses.push(trial.test_loss);
        self.layers.push(cost.average_layers());
        self.speedups.push(full.seconds / cost.seconds);
        self.certified += usize::from(trial.threshold_index.is_some());
        self.test_violations += usize::from(trial.test_loss > self.delta.get());
        self.pool_violations += usize::from(trial.pool_loss > self.delta.get());
    }

    fn row(self, calibration_examples: usize, test_examples: usize, epsilon: ErrorProbability) -> TrialsRow {
        let trials = self.thresholds.len();
        let (threshold, test_loss) = (Spread::of(self.thresholds), Spread::of(self.test_losses));
        let (layers, speedup) = (Spread::of(self.layers), Spread::of(self.speedups));
        TrialsRow {
            calibration_examples,
            test_examples,
            trials,
            certified: self.certified,
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
            test_violations: self.test_violations,
            pool_violations: self.pool_violations,
            accepted_violations: accepted_violations(trials, epsilon, SURPRISE),
        }
    }
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
