//! The configuration as it is written, before anything is checked beyond its types.

use std::collections::BTreeMap;
use std::path::PathBuf;

use calm_calibrate::{ErrorProbability, PValue, Procedure, TrialOptions};
use calm_core::{Exits, MeasureKind, PolicySpec};
use calm_data::{Columns, DatasetPaths};
use calm_metrics::{Loss, Metric};
use serde::{Deserialize, Serialize};

use super::ObjectiveKind;

/// A configuration file. Paths are relative to the directory that the command runs in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// Name of the run; its results go to `runs/NAME`.
    pub name: String,
    /// Decides which examples are taken where there are more than a limit allows.
    #[serde(default)]
    pub seed: u64,
    /// Worker threads, each decoding on its own; all processor cores if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Checkpoint directory.
    pub model: PathBuf,
    /// What is decoded.
    pub data: RawData,
    /// How.
    pub decode: RawDecode,
    /// Which settings.
    pub sweep: RawSweep,
    /// Which guarantees.
    pub calibration: RawCalibration,
    /// What the figures show.
    #[serde(default)]
    pub plots: RawPlots,
    /// Name of the task, of a comparison of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// What a comparison of several tasks shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compare: Option<RawCompare>,
    /// What the task stands for on the page of the paper's figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paper: Option<RawPaper>,
}

/// What a task stands for on the page of the paper's figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPaper {
    /// The paper's dataset that the task is the counterpart of.
    pub dataset: PaperDataset,
    /// Whether the model is the counterpart of the paper's first one or of its second one.
    #[serde(default)]
    pub model: PaperModel,
    /// Policies that are decoded on the test split for the page alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicySpec>,
}

/// A dataset of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PaperDataset {
    /// Summaries of news (CNN/DailyMail).
    CnnDm,
    /// English to French (WMT15).
    Wmt,
    /// Questions about a text (SQuAD 1.1).
    Squad,
}

/// A model of the paper.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PaperModel {
    /// That of its main results, with eight decoder layers.
    #[default]
    Main,
    /// That of its appendix B.3, with twelve.
    Second,
}

/// What a comparison shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawCompare {
    /// The kind of guarantee.
    #[serde(default = "textual")]
    pub objective: ObjectiveKind,
    /// The tolerance, one of those in the section `calibration`.
    pub delta: f64,
    /// What speed is measured on, such as `cpu-int8` or `libtorch`; the engine of the run if there is none.
    #[serde(default)]
    pub engines: Vec<String>,
    /// Rows decoded together when speed is measured.
    #[serde(default = "one_and_sixteen")]
    pub batch_sizes: Vec<usize>,
    /// Test examples of each task whose decoding is timed.
    #[serde(default = "thirty_two")]
    pub examples: usize,
    /// How often each policy is timed, in turns; the fastest counts.
    #[serde(default = "three")]
    pub rounds: usize,
}

fn textual() -> ObjectiveKind {
    ObjectiveKind::Textual
}
fn one_and_sixteen() -> Vec<usize> {
    vec![1, 16]
}
fn thirty_two() -> usize {
    32
}
fn three() -> usize {
    3
}

/// The two datasets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawData {
    /// Examples that every setting is measured on.
    pub test: DatasetPaths,
    /// Examples that thresholds are certified with. If they are those of `test`, they are divided.
    pub calibration: DatasetPaths,
    /// Take this many test examples; all of them if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_examples: Option<usize>,
    /// Take this many calibration examples; all of them if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_examples: Option<usize>,
    /// Where id, source and target are, and the task prefix.
    #[serde(default)]
    pub columns: Columns,
    /// Column of what examples belong to that come in groups, for which guarantees hold then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Decoding, whatever the setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDecode {
    /// Longest output in tokens; also N of the decaying threshold.
    pub max_tokens: usize,
    /// Longer sources are cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_source_tokens: Option<usize>,
    /// Examples decoded together.
    pub batch_size: usize,
    /// Examples of one unit of work, which is what an interrupted run resumes by.
    pub shard_size: usize,
}

/// The settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSweep {
    /// Confidence measures.
    pub measures: Vec<&'static MeasureKind>,
    /// Thresholds of all measures that have none of their own.
    #[serde(default)]
    pub thresholds: Vec<f64>,
    /// Static depths: `"all"`, or a list.
    #[serde(default)]
    pub static_layers: StaticLayers,
    /// Whether to run the oracle.
    #[serde(default)]
    pub oracle: bool,
    /// What is particular to one measure, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measure: BTreeMap<&'static MeasureKind, RawMeasure>,
    /// Whether thresholds are decoded on the test split only where they were certified. Figures then lack
    /// their curves.
    #[serde(default)]
    pub certified_only: bool,
    /// Other policies with thresholds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<RawSeries>,
    /// Other policies, each written as its id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicySpec>,
}

/// What is particular to one measure.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawMeasure {
    /// Decay tau of the threshold; constant thresholds if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay: Option<f64>,
    /// Layers after which is tested; all but the last if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exits: Option<Exits>,
    /// Instead of the common thresholds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<f64>>,
}

/// A policy with its thresholds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSeries {
    /// The policy's id, with a star for the threshold, such as `shallow-deep-4-*`.
    pub policy: String,
    /// Instead of the common thresholds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<f64>>,
}

/// Which static depths to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"all\" or a list of numbers of layers")]
pub enum StaticLayers {
    /// Those listed.
    Some(Vec<usize>),
    /// From 1 to the decoder's.
    #[default]
    #[serde(with = "all")]
    All,
}

/// The word `all`.
mod all {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("all")
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "all" => Ok(()),
            _ => Err(serde::de::Error::custom("not `all`")),
        }
    }
}

/// A procedure by its name.
mod procedure_name {
    use calm_calibrate::Procedure;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(procedure: &Procedure, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(procedure.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Procedure, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The guarantees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawCalibration {
    /// Probability that a guarantee fails.
    #[serde(default = "paper_epsilon")]
    pub epsilon: ErrorProbability,
    /// The p-value of each threshold; if it is missing, the one that suits the kind of each loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p_value: Option<PValue>,
    /// The family-wise procedure.
    #[serde(default, with = "procedure_name")]
    pub procedure: Procedure,
    /// How many thresholds the multi-start procedure starts at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts: Option<usize>,
    /// Share of the examples that the pareto procedure learns the order of testing on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_share: Option<f64>,
    /// Decides which examples the pareto procedure learns on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_seed: Option<u64>,
    /// Distance to the full model's output, for textual consistency.
    pub textual_distance: Loss,
    /// Tolerated textual distances.
    #[serde(default)]
    pub textual_deltas: Vec<f64>,
    /// Loss against the references, for risk consistency.
    pub risk: Loss,
    /// Tolerated increases of the risk, where an example that gains counts as one that loses nothing.
    #[serde(default)]
    pub risk_deltas: Vec<f64>,
    /// Tolerated increases of the risk, where the gains of some examples make up for the losses of others.
    #[serde(default)]
    pub signed_risk_deltas: Vec<f64>,
    /// How often to repeat each calibration.
    #[serde(default)]
    pub trials: RawTrials,
}

/// The paper's protocol: calibrations on random parts of the calibration examples, each measured on the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawTrials {
    /// How many; 0 for none.
    pub count: usize,
    /// Share of the calibration examples to calibrate on.
    pub calibration_share: f64,
    /// Decides which examples these are in each trial.
    pub seed: u64,
}

impl Default for RawTrials {
    /// The paper's.
    fn default() -> Self {
        let TrialOptions { trials, calibration_share, seed } = TrialOptions::default();
        Self { count: trials, calibration_share, seed }
    }
}

/// The figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPlots {
    /// Quality on the vertical axis, and in the final table.
    pub quality: Metric,
}

impl Default for RawPlots {
    fn default() -> Self {
        Self { quality: Metric::Bleu }
    }
}

fn paper_epsilon() -> ErrorProbability {
    ErrorProbability::PAPER
}
