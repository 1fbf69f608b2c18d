//! From the outputs of every setting to the rows of `sweep.csv` and `calibration.csv`. No model is needed.

use calm_calibrate::{Calibration, LossTable, Tolerance, calibrate};
use calm_core::{Parameters, PolicySpec};
use calm_metrics::significance::bootstrap;
use calm_metrics::{Metric, Scorer};
use rayon::prelude::*;
use serde::Serialize;

use crate::config::{Objective, Plan, Series};
use crate::outputs::{SplitOutputs, distances};
use crate::trials::{TrialsRow, repeat};

/// A row of `sweep.csv`: one setting on the test split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepRow {
    /// The setting.
    #[serde(skip)]
    pub spec: PolicySpec,
    /// Kind of the policy, such as `full` or `calm`.
    pub policy: &'static str,
    /// Confidence measure of calm.
    pub measure: Option<&'static str>,
    /// Threshold of calm.
    pub threshold: Option<f64>,
    /// Decay of the threshold, empty for a constant one.
    pub decay: Option<f64>,
    /// Layers after which calm tests, such as `2.4`; empty for all but the last.
    pub exits: Option<String>,
    /// Number of layers that the policy takes, such as the depth of static.
    pub static_layers: Option<usize>,
    /// Number of examples.
    pub examples: usize,
    /// Output tokens in all, end-of-sequence tokens included.
    pub tokens: usize,
    /// Output tokens per example.
    pub mean_length: f64,
    /// Mean exit layer of the tokens.
    pub average_layers: f64,
    /// Layer-tokens that were really computed, in all. The oracle computes every layer to know its exits.
    pub executed_layers: usize,
    /// Decoder FLOPs per token by the cost model.
    pub flops_per_token: f64,
    /// Encoding and decoding time in all, summed over the workers.
    pub seconds: f64,
    /// Output tokens per second of one worker.
    pub tokens_per_second: f64,
    /// BLEU of the split, 0 to 100.
    pub bleu: f64,
    /// chrF of the split, 0 to 100.
    pub chrf: f64,
    /// Mean ROUGE-L, 0 to 100.
    pub rouge_l: f64,
    /// Mean token-F1, 0 to 100.
    pub token_f1: f64,
    /// Mean distance to the full model's outputs, 0 to 1.
    pub textual_distance: f64,
    /// Mean risk minus that of the full model, negative where outputs are better than its.
    pub risk_difference: f64,
    /// Weights and caches that decoding an output on its own reads, in bytes per token by the cost model.
    pub bytes_per_token: f64,
    /// The least quality of the figures that is in keeping with the test split: 95 % of its resamples lie
    /// between this and `quality_high`.
    pub quality_low: f64,
    /// The largest.
    pub quality_high: f64,
}

/// Resamples of the test split for the interval of the quality.
const RESAMPLES: usize = 1000;

/// A guarantee: the columns that rows of `calibration.csv` and `trials.csv` start with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Guarantee {
    /// `textual`, `risk` or `signed-risk`.
    pub objective: &'static str,
    /// Tolerated expected loss.
    pub delta: f64,
    /// Probability that the guarantee fails.
    pub epsilon: f64,
    /// The policy, with a star for the threshold, such as `calm-softmax-*`.
    pub policy: String,
    /// Confidence measure.
    pub measure: Option<&'static str>,
    /// Decay of the threshold, empty for a constant one.
    pub decay: Option<f64>,
    /// Layers after which is tested, such as `2.4`; empty for all but the last.
    pub exits: Option<String>,
    /// Family-wise procedure.
    pub procedure: &'static str,
    /// Kind of p-value.
    pub p_value: &'static str,
}

/// A row of `calibration.csv` after its guarantee: what that costs and gives on the test split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CalibrationRow {
    /// The certified threshold.
    pub threshold: f64,
    /// Whether nothing was certified, so that the threshold is 1, the full model.
    pub fallback: bool,
    /// Number of calibration examples that the p-values are computed from, or of their groups.
    pub calibration_examples: usize,
    /// Mean loss on the calibration examples, or their groups, at this threshold.
    pub empirical_loss: f64,
    /// Mean loss on the test examples, or their groups: what is guaranteed to be at most delta. For `risk`
    /// the positive part of each difference counts, so it is larger than `risk_difference` of the sweep,
    /// which it equals for `signed-risk` where there are no groups.
    pub test_loss: f64,
    /// Mean exit layer on the test examples.
    pub test_average_layers: f64,
    /// Time of the full model on the test examples divided by the time at this threshold.
    pub test_speedup: f64,
}

/// All results of a run.
#[derive(Debug, Clone)]
pub struct Results {
    /// `sweep.csv`.
    pub sweep: Vec<SweepRow>,
    /// `calibration.csv`.
    pub calibration: Vec<(Guarantee, CalibrationRow)>,
    /// `trials.csv`, in the same order; empty without trials.
    pub trials: Vec<(Guarantee, TrialsRow)>,
    /// The same with every p-value, in the same order.
    pub calibrations: Vec<Calibration>,
    /// Decoder layers of the model.
    pub num_layers: usize,
    /// Numbers of workers that the times were measured with.
    pub workers: Vec<usize>,
    /// Share of the time of decoding the test split in which workers waited for a core, 0 to 1: other
    /// programs had it, and speed-ups mean little.
    pub waited: f64,
}

impl Results {
    /// The row of the sweep of a policy, if it was decoded on the test split.
    pub(crate) fn row(&self, policy: PolicySpec) -> Option<&SweepRow> {
        self.sweep.iter().find(|row| row.spec == policy)
    }

    /// The full model's row, which every sweep has.
    pub(crate) fn full(&self) -> Option<&SweepRow> {
        self.row(PolicySpec::full())
    }
}

impl Guarantee {
    pub(crate) fn new(plan: &Plan, objective: &Objective, delta: Tolerance, series: &Series) -> Self {
        Self {
            objective: objective.kind.name(),
            delta: delta.get(),
            epsilon: plan.epsilon.get(),
            policy: series.family().to_owned(),
            measure: series.parameters().measure.map(|measure| measure.name),
            decay: series.decay(),
            exits: series.parameters().exits.map(|exits| exits.to_string()),
            procedure: plan.procedure.name(),
            p_value: objective.p_value.name(),
        }
    }
}

/// Makes all tables.
///
/// # Errors
/// A metric or a calibration cannot be computed, which a checked plan and complete files do not cause.
pub fn compute(
    plan: &Plan,
    sweep_policies: &[PolicySpec],
    test: &SplitOutputs<'_>,
    calibration: &SplitOutputs<'_>,
) -> anyhow::Result<Results> {
    let sweep = sweep_policies.par_iter().map(|&policy| sweep_row(plan, test, policy));
    let sweep = sweep.collect::<anyhow::Result<Vec<_>>>()?;
    let pairs = guaranteed(plan);
    let order = calibration.dataset.groups.random_order(plan.seed);
    let certified = pairs.par_iter().map(|(objective, series)| {
        let losses = losses_of_series(objective, series, calibration)?;
        let table = loss_table(&series.levels(test.num_layers), &losses, &order)?;
        let certified = certify(plan, objective, series, test, &table)?;
        let trials = repeat(plan, objective, series, calibration, losses)?;
        Ok((certified, trials))
    });
    let (certified, trials): (Vec<_>, Vec<_>) =
        certified.collect::<anyhow::Result<Vec<_>>>()?.into_iter().unzip();
    let (calibrations, rows) = certified.into_iter().flatten().unzip();
    Ok(Results {
        sweep,
        calibration: rows,
        trials: trials.into_iter().flatten().collect(),
        calibrations,
        num_layers: test.num_layers,
        workers: test.workers(),
        waited: test.waited(),
    })
}

/// Each objective with each series that it is certified for.
fn guaranteed(plan: &Plan) -> Vec<(&Objective, &Series)> {
    let of_objective = |objective| plan.series.iter().map(move |series| (objective, series));
    plan.objectives.iter().flat_map(of_objective).collect()
}

/// The trials of every guarantee on one split, which takes the place of the calibration split.
///
/// # Errors
/// A threshold was not decoded on it, or its examples are too few to be divided.
pub(crate) fn trials_on(plan: &Plan, pool: &SplitOutputs<'_>) -> anyhow::Result<Vec<(Guarantee, TrialsRow)>> {
    let pairs = guaranteed(plan);
    let trials = pairs.par_iter().map(|(objective, series)| {
        repeat(plan, objective, series, pool, losses_of_series(objective, series, pool)?)
    });
    Ok(trials.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn sweep_row(plan: &Plan, test: &SplitOutputs<'_>, policy: PolicySpec) -> anyhow::Result<SweepRow> {
    let (outputs, full) = (test.of(policy)?, test.of(PolicySpec::full())?);
    let references = test.dataset.references();
    let score = |metric: Metric| metric.corpus_score(&outputs.texts, &references);
    let risk =
        |texts: &[String]| Ok::<_, calm_metrics::Error>(mean(&plan.risk().of_each(texts, &references)?));
    let (cost, examples) = (outputs.cost(), outputs.texts.len());
    let tokens = cost.tokens as f64;
    let Parameters { layers, measure, threshold, exits, .. } = *policy.parameters();
    let statistics = Scorer::from(plan.quality).statistics(&outputs.texts, &references)?;
    let interval = bootstrap(&statistics, RESAMPLES, plan.seed)?;
    Ok(SweepRow {
        spec: policy,
        policy: policy.kind().name,
        measure: measure.map(|measure| measure.name),
        threshold: threshold.map(|threshold| threshold.value()),
        decay: threshold.and_then(|threshold| threshold.decay()),
        exits: exits.map(|exits| exits.to_string()),
        static_layers: layers,
        examples,
        tokens: cost.tokens,
        mean_length: tokens / examples as f64,
        average_layers: cost.average_layers(),
        executed_layers: outputs.executed_layers,
        flops_per_token: outputs.flops / tokens,
        seconds: cost.seconds,
        tokens_per_second: tokens / cost.seconds,
        bleu: score(Metric::Bleu)?,
        chrf: score(Metric::Chrf)?,
        rouge_l: score(Metric::RougeL)?,
        token_f1: score(Metric::TokenF1)?,
        textual_distance: mean(&distances(plan.textual_distance(), &outputs.texts, &full.texts)?),
        risk_difference: risk(&outputs.texts)? - risk(&full.texts)?,
        bytes_per_token: outputs.bytes / tokens,
        quality_low: interval.low,
        quality_high: interval.high,
    })
}

/// The losses in a random order of the examples: the betting p-value depends on their order, and would take a
/// file that is sorted by something that the loss depends on, such as the length, for one whose losses are
/// small.
pub(crate) fn loss_table(levels: &[f64], losses: &[Vec<f64>], order: &[usize]) -> anyhow::Result<LossTable> {
    let losses = losses.iter().map(|losses| order.iter().map(|&example| losses[example]).collect());
    Ok(LossTable::new(levels.to_vec(), losses.collect())?)
}

/// The policies at all thresholds that are certified, for any objective and tolerance.
pub(crate) fn certified_policies(
    plan: &Plan,
    calibration: &SplitOutputs<'_>,
) -> anyhow::Result<Vec<PolicySpec>> {
    let order = calibration.dataset.groups.random_order(plan.seed);
    let mut policies = Vec::new();
    for objective in &plan.objectives {
        for series in &plan.series {
            let levels = series.levels(calibration.num_layers);
            let table = loss_table(&levels, &losses_of_series(objective, series, calibration)?, &order)?;
            for &delta in &objective.deltas {
                let certified = calibrate(&table, &plan.calibration_options(objective, delta))?;
                let index = certified_index(&levels, &certified);
                policies.extend(index.and_then(|index| series.policies().nth(index)));
            }
        }
    }
    Ok(policies)
}

/// The losses of the groups of calibration examples, by policy of a series.
pub(crate) fn losses_of_series(
    objective: &Objective,
    series: &Series,
    calibration: &SplitOutputs<'_>,
) -> anyhow::Result<Vec<Vec<f64>>> {
    series.policies().map(|policy| group_losses(objective, calibration, policy)).collect()
}

fn group_losses(
    objective: &Objective,
    outputs: &SplitOutputs<'_>,
    policy: PolicySpec,
) -> anyhow::Result<Vec<f64>> {
    Ok(outputs.dataset.groups.means(&outputs.losses((objective.kind, objective.loss), policy)?))
}

/// Which of a series a calibration at these levels has certified; `None` if that is the full model alone,
/// whether or not the series has it.
fn certified_index(levels: &[f64], certified: &Calibration) -> Option<usize> {
    let index = levels.iter().position(|&level| level == certified.threshold);
    index.filter(|_| !certified.fallback)
}

/// Certifies a threshold of `series` for each tolerance of `objective`.
fn certify(
    plan: &Plan,
    objective: &Objective,
    series: &Series,
    test: &SplitOutputs<'_>,
    table: &LossTable,
) -> anyhow::Result<Vec<(Calibration, (Guarantee, CalibrationRow))>> {
    let full = test.of(PolicySpec::full())?.cost();
    let levels = series.levels(test.num_layers);
    let row = |&delta| {
        let certified = calibrate(table, &plan.calibration_options(objective, delta))?;
        let index = certified_index(&levels, &certified);
        let policy = index.and_then(|index| series.policies().nth(index)).unwrap_or(PolicySpec::full());
        let cost = test.of(policy)?.cost();
        let row = CalibrationRow {
            threshold: index.map_or(1.0, |index| series.thresholds()[index]),
            fallback: certified.fallback,
            calibration_examples: certified.examples,
            empirical_loss: certified.empirical_loss(),
            test_loss: mean(&group_losses(objective, test, policy)?),
            test_average_layers: cost.average_layers(),
            test_speedup: full.seconds / cost.seconds,
        };
        Ok((certified, (Guarantee::new(plan, objective, delta, series), row)))
    };
    objective.deltas.iter().map(row).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
