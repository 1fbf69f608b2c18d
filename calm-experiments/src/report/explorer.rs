//! What the explorer of a page knows: each test example with its outputs, token by token.

use anyhow::Context;
use calm_core::PolicySpec;
use serde::Serialize;

use super::Material;
use super::shown::Shown;
use crate::config::ObjectiveKind;
use crate::dataset::Dataset;
use crate::outputs::distances;
use crate::settings::decoded_as;
use crate::unit::{Common, Record, Store, UnitKey};

/// Everything that is embedded for the explorer.
#[derive(Serialize)]
pub(super) struct ExplorerData<'a> {
    /// Decoder layers of the model.
    layers: usize,
    /// The name of the textual distance.
    distance: &'static str,
    /// The name of the risk against references.
    risk: &'static str,
    policies: &'a [Shown],
    examples: Vec<ExampleView<'a>>,
}

#[derive(Serialize)]
struct ExampleView<'a> {
    id: &'a str,
    source: &'a str,
    references: &'a [String],
    /// One for each policy, in their order.
    outputs: Vec<OutputView>,
}

#[derive(Serialize)]
struct OutputView {
    /// The text of each token, which may be empty.
    tokens: Vec<String>,
    /// The exit layer of each token.
    exits: Vec<usize>,
    /// The confidence that each token was last tested with, null where nothing was tested.
    confidence: Vec<Option<f64>>,
    /// Distance from the full model's output, 0 to 1.
    distance: f64,
    /// Risk against the references minus that of the full model's output.
    risk_difference: f64,
}

impl<'a> ExplorerData<'a> {
    /// Reads the outputs of the settings that are shown.
    pub(super) fn new(material: &Material<'a>, shown: &'a [Shown]) -> anyhow::Result<Self> {
        let plan = material.plan;
        let dataset = material.test.dataset;
        let mut examples: Vec<ExampleView<'_>> = dataset
            .examples
            .iter()
            .map(|example| ExampleView {
                id: &example.id,
                source: &example.source,
                references: &example.references,
                outputs: Vec::with_capacity(shown.len()),
            })
            .collect();
        let full = &material.test.of(PolicySpec::full())?.texts;
        for setting in shown {
            let texts = &material.test.of(setting.policy)?.texts;
            let distance = distances(plan.textual_distance(), texts, full)?;
            let risks = material.test.losses((ObjectiveKind::SignedRisk, plan.risk()), setting.policy)?;
            let records = records(
                material.store,
                material.common,
                dataset,
                setting.policy,
                material.results.num_layers,
            )?;
            let numbers = distance.into_iter().zip(risks);
            for ((example, record), (distance, risk_difference)) in
                examples.iter_mut().zip(records).zip(numbers)
            {
                example.outputs.push(OutputView::new(record, distance, risk_difference));
            }
        }
        Ok(Self {
            layers: material.results.num_layers,
            distance: plan.textual_distance().name(),
            risk: plan.risk().name(),
            policies: shown,
            examples,
        })
    }
}

/// The records of a setting for all examples of a split, in their order.
///
/// # Errors
/// A unit is missing, damaged or of another run.
pub(crate) fn records(
    store: &Store,
    common: &Common,
    dataset: &Dataset,
    policy: PolicySpec,
    num_layers: usize,
) -> anyhow::Result<Vec<Record>> {
    let policy = decoded_as(policy, num_layers);
    let mut records = Vec::with_capacity(dataset.examples.len());
    for shard in &dataset.shards {
        let key = UnitKey::new(common, dataset.split, shard, policy);
        let of_shard = store.read(&key, &dataset.examples[shard.range.clone()]);
        records.extend(of_shard.with_context(|| format!("the outputs of {policy}"))?.1);
    }
    Ok(records)
}

/// The text of each token of an output. Files of earlier versions tell the text as a whole, which is that of
/// the first token then.
pub(crate) fn pieces(record: &Record) -> Vec<String> {
    let Record { text, ends, generation, .. } = record;
    if ends.is_empty() {
        let rest = std::iter::repeat(String::new());
        return std::iter::once(text.clone()).chain(rest).take(generation.tokens.len()).collect();
    }
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends).map(|(start, &end)| text[start..end].to_owned()).collect()
}

impl OutputView {
    fn new(record: Record, distance: f64, risk_difference: f64) -> Self {
        let (tokens, generation) = (pieces(&record), record.generation);
        let rounded = |value: f64, unit: f64| (value * unit).round() / unit;
        let confidence = generation.confidence.iter();
        Self {
            tokens,
            exits: generation.exit_layers,
            confidence: confidence.map(|value| value.map(|value| rounded(f64::from(value), 1e3))).collect(),
            distance: rounded(distance, 1e4),
            risk_difference: rounded(risk_difference, 1e4),
        }
    }
}
