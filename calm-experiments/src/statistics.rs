//! From the files of units to the rows of `sweep.csv` and `calibration.csv`. No model is needed.

use std::collections::HashMap;

use anyhow::{Context, bail};
use calm_calibrate::{Calibration, LossTable, calibrate, positive_part_risk_loss};
use calm_core::{CostModel, PolicySpec};
use calm_metrics::Metric;
use rayon::prelude::*;
use serde::Serialize;

use crate::config::{Objective, ObjectiveKind, Plan, Series};
use crate::dataset::Dataset;
use crate::settings::{decoded_as, threshold_of};
use crate::unit::{Common, Store, UnitKey};

/// A row of `sweep.csv`: one setting on the test split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepRow {
    /// `full`, `static`, `oracle` or `calm`.
    pub policy: &'static str,
    /// Confidence measure of calm.
    pub measure: Option<&'static str>,
    /// Threshold of calm.
    pub threshold: Option<f64>,
    /// Decay of the threshold, empty for a constant one.
    pub decay: Option<f64>,
    /// Depth of static.
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
}

/// A row of `calibration.csv`: a guarantee and what it costs and gives on the test split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CalibrationRow {
    /// `textual` or `risk`.
    pub objective: &'static str,
    /// Tolerated expected loss.
    pub delta: f64,
    /// Probability that the guarantee fails.
    pub epsilon: f64,
    /// Confidence measure.
    pub measure: &'static str,
    /// Decay of the threshold, empty for a constant one.
    pub decay: Option<f64>,
    /// Family-wise procedure.
    pub procedure: &'static str,
    /// Kind of p-value.
    pub p_value: &'static str,
    /// The certified threshold.
    pub threshold: f64,
    /// Whether nothing was certified, so that the threshold is 1, the full model.
    pub fallback: bool,
    /// Number of calibration examples.
    pub calibration_examples: usize,
    /// Mean loss on the calibration examples at this threshold.
    pub empirical_loss: f64,
    /// Mean loss on the test examples: what is guaranteed to be at most delta. For risk the positive part of each
    /// difference counts, so it is larger than `risk_difference` of the sweep.
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
    pub calibration: Vec<CalibrationRow>,
    /// The same with every p-value, in the same order.
    pub calibrations: Vec<Calibration>,
    /// Decoder layers of the model.
    pub num_layers: usize,
    /// Numbers of workers that the times were measured with.
    pub workers: Vec<usize>,
}

/// All outputs of a split, by setting.
pub struct SplitOutputs<'a> {
    dataset: &'a Dataset,
    num_layers: usize,
    by_policy: HashMap<String, Outputs>,
}

/// Outputs of one setting on a split and what they took.
struct Outputs {
    texts: Vec<String>,
    tokens: usize,
    exit_layers: usize,
    executed_layers: usize,
    flops: f64,
    seconds: f64,
    workers: Vec<usize>,
}

impl<'a> SplitOutputs<'a> {
    /// Reads the units of `policies` (as [`crate::settings::to_decode`] gives them).
    ///
    /// # Errors
    /// A unit is missing, damaged or of another run.
    pub fn read(
        store: &Store,
        common: &Common,
        dataset: &'a Dataset,
        policies: &[PolicySpec],
        num_layers: usize,
    ) -> anyhow::Result<Self> {
        let outputs = policies
            .par_iter()
            .map(|policy| Ok((policy.id(), read_outputs(store, common, dataset, *policy)?)))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { dataset, num_layers, by_policy: outputs })
    }

    fn of(&self, policy: PolicySpec) -> anyhow::Result<&Outputs> {
        let id = decoded_as(policy, self.num_layers).id();
        self.by_policy.get(&id).with_context(|| format!("{} was not decoded", policy.id()))
    }

    /// The loss of each example under an objective (paper Eq. 10 and 11).
    fn losses(&self, objective: &Objective, policy: PolicySpec) -> anyhow::Result<Vec<f64>> {
        let (early, full) = (&self.of(policy)?.texts, &self.of(PolicySpec::Full)?.texts);
        match objective.kind {
            ObjectiveKind::Textual => Ok(distances(objective.loss, early, full)?),
            ObjectiveKind::Risk => {
                let references = self.dataset.references();
                let early = objective.loss.of_each(early, &references)?;
                let full = objective.loss.of_each(full, &references)?;
                let pairs = early.into_iter().zip(full);
                Ok(pairs
                    .map(|(early, full)| positive_part_risk_loss(early, full))
                    .collect::<Result<_, _>>()?)
            }
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
    let pairs: Vec<_> = plan
        .objectives
        .iter()
        .flat_map(|objective| plan.series.iter().map(move |s| (objective, s)))
        .collect();
    let certified =
        pairs.par_iter().map(|(objective, series)| certify(plan, objective, series, test, calibration));
    let (calibrations, rows) = certified.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().unzip();
    let mut workers: Vec<usize> =
        test.by_policy.values().flat_map(|outputs| outputs.workers.clone()).collect();
    workers.sort_unstable();
    workers.dedup();
    Ok(Results { sweep, calibration: rows, calibrations, num_layers: test.num_layers, workers })
}

fn read_outputs(
    store: &Store,
    common: &Common,
    dataset: &Dataset,
    policy: PolicySpec,
) -> anyhow::Result<Outputs> {
    let mut outputs = Outputs {
        texts: Vec::with_capacity(dataset.examples.len()),
        tokens: 0,
        exit_layers: 0,
        executed_layers: 0,
        flops: 0.0,
        seconds: 0.0,
        workers: Vec::new(),
    };
    for shard in &dataset.shards {
        let (header, records) = store.read(&UnitKey::new(common, dataset.split, shard, policy))?;
        let cost = CostModel::new(&header.shape);
        outputs.workers.push(header.workers);
        for (record, example) in records.into_iter().zip(&dataset.examples[shard.range.clone()]) {
            if record.example != example.id {
                bail!(
                    "{} shard {}: example {} instead of {}",
                    policy,
                    shard.index,
                    record.example,
                    example.id
                );
            }
            let generation = record.generation;
            outputs.tokens += generation.tokens.len();
            outputs.exit_layers += generation.exit_layers.iter().sum::<usize>();
            outputs.executed_layers += generation.executed_layers;
            outputs.flops +=
                cost.sequence(&generation.exit_layers, record.source_tokens, policy.test_inputs());
            outputs.seconds += generation.seconds + record.encoder_seconds;
            outputs.texts.push(record.text);
        }
    }
    Ok(outputs)
}

fn sweep_row(plan: &Plan, test: &SplitOutputs<'_>, policy: PolicySpec) -> anyhow::Result<SweepRow> {
    let (outputs, full) = (test.of(policy)?, test.of(PolicySpec::Full)?);
    let references = test.dataset.references();
    let score = |metric: Metric| metric.corpus_score(&outputs.texts, &references);
    let risk =
        |texts: &[String]| Ok::<_, calm_metrics::Error>(mean(&plan.risk().of_each(texts, &references)?));
    let (tokens, examples) = (outputs.tokens as f64, outputs.texts.len());
    let threshold = threshold_of(&policy);
    Ok(SweepRow {
        policy: match policy {
            PolicySpec::Full => "full",
            PolicySpec::Static { .. } => "static",
            PolicySpec::Oracle => "oracle",
            PolicySpec::Calm { .. } => "calm",
        },
        measure: match policy {
            PolicySpec::Calm { measure, .. } => Some(measure.name()),
            _ => None,
        },
        threshold: threshold.map(|threshold| threshold.value()),
        decay: threshold.and_then(|threshold| threshold.decay()),
        static_layers: match policy {
            PolicySpec::Static { layers } => Some(layers),
            _ => None,
        },
        examples,
        tokens: outputs.tokens,
        mean_length: tokens / examples as f64,
        average_layers: outputs.average_layers(),
        executed_layers: outputs.executed_layers,
        flops_per_token: outputs.flops / tokens,
        seconds: outputs.seconds,
        tokens_per_second: tokens / outputs.seconds,
        bleu: score(Metric::Bleu)?,
        chrf: score(Metric::Chrf)?,
        rouge_l: score(Metric::RougeL)?,
        token_f1: score(Metric::TokenF1)?,
        textual_distance: mean(&distances(plan.textual_distance(), &outputs.texts, &full.texts)?),
        risk_difference: risk(&outputs.texts)? - risk(&full.texts)?,
    })
}

/// Certifies a threshold of `series` for each tolerance of `objective`.
fn certify(
    plan: &Plan,
    objective: &Objective,
    series: &Series,
    test: &SplitOutputs<'_>,
    calibration: &SplitOutputs<'_>,
) -> anyhow::Result<Vec<(Calibration, CalibrationRow)>> {
    let thresholds = series.thresholds.iter().map(|threshold| threshold.value()).collect();
    let losses = series.policies().map(|policy| calibration.losses(objective, policy));
    let table = LossTable::new(thresholds, losses.collect::<anyhow::Result<_>>()?)?;
    let row = |&delta| {
        let certified = calibrate(&table, &plan.calibration_options(objective, delta))?;
        // The fallback is the full model whether or not the grid has the threshold 1.
        let selected =
            series.thresholds.iter().position(|threshold| threshold.value() == certified.threshold);
        let policy = selected.and_then(|index| series.policies().nth(index)).unwrap_or(PolicySpec::Full);
        let (outputs, full) = (test.of(policy)?, test.of(PolicySpec::Full)?);
        let row = CalibrationRow {
            objective: objective.kind.name(),
            delta: delta.get(),
            epsilon: plan.epsilon.get(),
            measure: series.measure.name(),
            decay: series.decay,
            procedure: plan.procedure.name(),
            p_value: plan.p_value.name(),
            threshold: certified.threshold,
            fallback: certified.fallback,
            calibration_examples: certified.examples,
            empirical_loss: certified.empirical_loss(),
            test_loss: mean(&test.losses(objective, policy)?),
            test_average_layers: outputs.average_layers(),
            test_speedup: full.seconds / outputs.seconds,
        };
        Ok((certified, row))
    };
    objective.deltas.iter().map(row).collect()
}

impl Outputs {
    fn average_layers(&self) -> f64 {
        self.exit_layers as f64 / self.tokens as f64
    }
}

fn distances(
    loss: calm_metrics::Loss,
    outputs: &[String],
    full: &[String],
) -> Result<Vec<f64>, calm_metrics::Error> {
    let full: Vec<[&str; 1]> = full.iter().map(|text| [text.as_str()]).collect();
    loss.of_each(outputs, &full)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
