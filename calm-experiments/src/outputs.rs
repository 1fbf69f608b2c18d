//! The outputs of every setting on a split and what they took, read from the files of units.

use std::collections::BTreeMap;

use anyhow::Context;
use calm_calibrate::{positive_part_risk_loss, signed_risk_loss};
use calm_core::PolicySpec;
use calm_metrics::Loss;
use rayon::prelude::*;

use crate::config::ObjectiveKind;
use crate::dataset::Dataset;
use crate::settings::decoded_as;
use crate::unit::{Common, Store, UnitKey};

/// All outputs of a split, by setting.
pub struct SplitOutputs<'a> {
    pub(crate) dataset: &'a Dataset,
    pub(crate) num_layers: usize,
    by_policy: BTreeMap<String, Outputs>,
}

/// Outputs of one setting on a split and what they took.
pub(crate) struct Outputs {
    pub(crate) texts: Vec<String>,
    /// What each example took.
    pub(crate) costs: Vec<Cost>,
    pub(crate) executed_layers: usize,
    pub(crate) flops: f64,
    pub(crate) bytes: f64,
    /// Number of tokens that left after each layer, from the first on.
    pub(crate) exits: Vec<usize>,
    /// By position of the output, number of tokens there and the sum of their exit layers.
    pub(crate) positions: Vec<(usize, usize)>,
    /// Seconds of reading the sources.
    pub(crate) encoder_seconds: f64,
    /// Seconds of decoding by part of the call; none if no file says so.
    pub(crate) parts: BTreeMap<&'static str, f64>,
    /// Seconds of decoding in which workers waited for a core.
    waited: f64,
    workers: Vec<usize>,
}

/// What the output of one example took, or those of several together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) tokens: usize,
    /// Sum over the tokens.
    pub(crate) exit_layers: usize,
    pub(crate) seconds: f64,
}

impl Cost {
    /// The mean exit layer of the tokens.
    pub(crate) fn average_layers(self) -> f64 {
        self.exit_layers as f64 / self.tokens as f64
    }
}

impl<'a> std::iter::Sum<&'a Cost> for Cost {
    fn sum<I: Iterator<Item = &'a Cost>>(costs: I) -> Self {
        costs.fold(Self::default(), |sum, cost| Self {
            tokens: sum.tokens + cost.tokens,
            exit_layers: sum.exit_layers + cost.exit_layers,
            seconds: sum.seconds + cost.seconds,
        })
    }
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
            .map(|policy| Ok((policy.to_string(), read_outputs(store, common, dataset, *policy)?)))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { dataset, num_layers, by_policy: outputs })
    }

    pub(crate) fn of(&self, policy: PolicySpec) -> anyhow::Result<&Outputs> {
        let id = decoded_as(policy, self.num_layers).to_string();
        self.by_policy.get(&id).with_context(|| format!("{policy} was not decoded"))
    }

    /// The loss of each example under a kind of objective, measured so (paper Eq. 10 and 11).
    pub(crate) fn losses(
        &self,
        (kind, loss): (ObjectiveKind, Loss),
        policy: PolicySpec,
    ) -> anyhow::Result<Vec<f64>> {
        let (early, full) = (&self.of(policy)?.texts, &self.of(PolicySpec::full())?.texts);
        let loss_of_risks = match kind {
            ObjectiveKind::Textual => return Ok(distances(loss, early, full)?),
            ObjectiveKind::Risk => positive_part_risk_loss,
            ObjectiveKind::SignedRisk => signed_risk_loss,
        };
        let references = self.dataset.references();
        let early = loss.of_each(early, &references)?;
        let full = loss.of_each(full, &references)?;
        let pairs = early.into_iter().zip(full);
        Ok(pairs.map(|(early, full)| loss_of_risks(early, full)).collect::<Result<_, _>>()?)
    }

    /// The different numbers of workers that decoded, ascending.
    pub(crate) fn workers(&self) -> Vec<usize> {
        let mut workers: Vec<usize> =
            self.by_policy.values().flat_map(|outputs| outputs.workers.clone()).collect();
        workers.sort_unstable();
        workers.dedup();
        workers
    }

    /// Share of the time of decoding in which workers waited for a core.
    pub(crate) fn waited(&self) -> f64 {
        let decoding = |outputs: &Outputs| outputs.cost().seconds - outputs.encoder_seconds;
        let (waited, seconds) = self.by_policy.values().fold((0.0, 0.0), |(waited, seconds), outputs| {
            (waited + outputs.waited, seconds + decoding(outputs))
        });
        if seconds > 0.0 { waited / seconds } else { 0.0 }
    }
}

impl Outputs {
    fn count_exits(&mut self, exit_layers: &[usize]) {
        if self.positions.len() < exit_layers.len() {
            self.positions.resize(exit_layers.len(), (0, 0));
        }
        for (&layer, (tokens, layers)) in exit_layers.iter().zip(&mut self.positions) {
            self.exits[layer - 1] += 1;
            *tokens += 1;
            *layers += layer;
        }
    }

    /// What all examples took together.
    pub(crate) fn cost(&self) -> Cost {
        self.costs.iter().sum()
    }
}

fn read_outputs(
    store: &Store,
    common: &Common,
    dataset: &Dataset,
    policy: PolicySpec,
) -> anyhow::Result<Outputs> {
    let mut outputs = Outputs {
        texts: Vec::with_capacity(dataset.examples.len()),
        costs: Vec::with_capacity(dataset.examples.len()),
        executed_layers: 0,
        flops: 0.0,
        bytes: 0.0,
        exits: Vec::new(),
        positions: Vec::new(),
        encoder_seconds: 0.0,
        parts: BTreeMap::new(),
        waited: 0.0,
        workers: Vec::new(),
    };
    for shard in &dataset.shards {
        let key = UnitKey::new(common, dataset.split, shard, policy);
        let (header, records) = store.read(&key, &dataset.examples[shard.range.clone()])?;
        outputs.workers.push(header.workers);
        outputs.waited += header.waited.unwrap_or(0.0);
        outputs.exits.resize(header.shape.num_layers, 0);
        for (part, seconds) in &header.parts {
            *outputs.parts.entry(part.name()).or_default() += seconds;
        }
        for record in records {
            let generation = record.generation;
            outputs.count_exits(&generation.exit_layers);
            outputs.encoder_seconds += record.encoder_seconds;
            outputs.costs.push(Cost {
                tokens: generation.tokens.len(),
                exit_layers: generation.exit_layers.iter().sum(),
                seconds: generation.seconds + record.encoder_seconds,
            });
            outputs.executed_layers += generation.executed_layers;
            outputs.flops += header.shape.sequence_flops(&policy, &generation, record.source_tokens);
            outputs.bytes += header.shape.sequence_bytes(&policy, &generation, record.source_tokens);
            outputs.texts.push(record.text);
        }
    }
    Ok(outputs)
}

/// Computes the distance of each output from the full model's.
pub(crate) fn distances(
    loss: Loss,
    outputs: &[String],
    full: &[String],
) -> Result<Vec<f64>, calm_metrics::Error> {
    let full: Vec<[&str; 1]> = full.iter().map(|text| [text.as_str()]).collect();
    loss.of_each(outputs, &full)
}
