//! A training run as its TOML file describes it.

mod load;

use std::path::PathBuf;

use calm_data::{Columns, DatasetPaths};
use calm_metrics::Metric;
use serde::{Deserialize, Serialize};

use crate::optimizer::OptimizerConfig;
use crate::schedule::ScheduleConfig;

/// A training run, as `calm train CONFIG.toml` reads it. Paths are relative to the directory the command runs
/// in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Decides initialisation, order of the data, dropout (of layers too) and the sampling of exits.
    pub seed: u64,
    /// Directory the finished checkpoint is written to, in the Hugging Face layout.
    pub output: PathBuf,
    /// Directory of the resumable checkpoint, the tokenised data and the log.
    pub checkpoints: PathBuf,
    /// `tokenizer.json`, copied next to the weights; that of `init` if the key is missing. A network of
    /// random weights has its special tokens.
    #[serde(default)]
    pub tokenizer: Option<PathBuf>,
    /// Checkpoint directory of any T5 to start from, instead of `model`.
    #[serde(default)]
    pub init: Option<PathBuf>,
    /// Shape of a network to train from random weights, instead of `init`.
    #[serde(default)]
    pub model: Option<ModelConfig>,
    /// Type of activations and matrix products. Parameters, optimiser and loss are f32 whatever it is.
    #[serde(default)]
    pub precision: Precision,
    /// Type of the finished checkpoint's weights.
    #[serde(default = "default_output_precision")]
    pub output_precision: Precision,
    /// What it learns from.
    pub data: DataConfig,
    /// The multi-exit loss.
    #[serde(default)]
    pub objective: ObjectiveConfig,
    /// How gradients become steps.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// Learning rate over the steps.
    pub schedule: ScheduleConfig,
    /// The exit classifier, trained on the finished backbone.
    #[serde(default)]
    pub classifier: ClassifierConfig,
    /// The maps of the measures `agreement`, fitted to the finished model's own outputs.
    #[serde(default)]
    pub confidence: ConfidenceConfig,
    /// Losses and scores on held-out examples while training.
    #[serde(default)]
    pub validation: ValidationConfig,
    /// Steps between two checkpoints.
    #[serde(default = "default_checkpoint_every")]
    pub checkpoint_every: u64,
    /// The run stops when the mean loss of 20 steps exceeds its running mean by this many nats per token. 0
    /// turns it off.
    #[serde(default = "default_loss_spike")]
    pub loss_spike: f64,
    /// Size of the largest file of weights or checkpoint in bytes; larger ones are divided.
    #[serde(default = "default_max_file_bytes")]
    pub max_file_bytes: usize,
}

/// Type of activations and matrix products.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the range of f32; three to four times faster where the processor multiplies in it.
    Bf16,
}

/// Shape of a network trained from random weights; always the T5 v1.1 kind (gated gelu) with a tied or
/// separate head.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Width of the residual stream.
    pub d_model: i64,
    /// Width of one attention head.
    pub d_kv: i64,
    /// Width of the feed-forward layer.
    pub d_ff: i64,
    /// Attention heads.
    pub num_heads: i64,
    /// Encoder layers.
    pub num_layers: i64,
    /// Decoder layers, each of which is an exit.
    pub num_decoder_layers: i64,
    /// Whether the head is the embedding.
    #[serde(default = "default_true")]
    pub tie_word_embeddings: bool,
}

/// Training examples.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// One or several tasks that one network learns.
    pub tasks: Vec<TaskConfig>,
    /// Longer sources are cut.
    pub max_source_tokens: usize,
    /// Examples with longer targets are left out.
    pub max_target_tokens: usize,
    /// Padded source tokens plus padded target tokens of a batch, at most.
    pub batch_tokens: usize,
}

/// One task: where its examples are, how much it counts, and how it is scored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    /// Name of the task in logs, plots and file names.
    pub name: String,
    /// Training examples: a file, a pattern, `hf://datasets/...`, or a list of these.
    pub train: DatasetPaths,
    /// Held-out examples; if the key is missing, `validation.examples` are taken out of the training
    /// examples.
    #[serde(default)]
    pub validation: Option<DatasetPaths>,
    /// Which columns make an example.
    #[serde(default)]
    pub columns: Columns,
    /// How decoded held-out examples are scored.
    #[serde(default = "default_metric")]
    pub metric: Metric,
    /// How often an epoch passes over the task's examples: 0.5 takes half of them, another half in each
    /// epoch.
    #[serde(default = "default_task_weight")]
    pub weight: f64,
}

/// The weighted multi-exit loss (CALM, equation 6).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectiveConfig {
    /// How much each exit's loss counts.
    pub exit_weights: ExitWeights,
    /// Weight of the last exit; the others keep their proportions and share the rest. None leaves it what
    /// `exit_weights` says.
    pub last_weight: Option<f64>,
    /// Exits below the last one that a step computes, at least 1, weighted so that the expected gradient is
    /// that of the full sum. None computes all: the head over the vocabulary is then most of the work of a
    /// step.
    pub sampled_exits: Option<usize>,
    /// How these are chosen.
    pub sampling: ExitSampling,
    /// Share of the last exit's distribution, against that of the labels, in what the exits below learn:
    /// self-distillation.
    pub distillation: f64,
    /// Probability mass spread over the vocabulary.
    pub label_smoothing: f64,
    /// Dropout rate everywhere T5 has it.
    pub dropout: f64,
    /// A row skips the last decoder layer with this probability, lower layers less often and the first one
    /// never (LayerSkip's layer dropout). 0 turns it off.
    pub layer_dropout: f64,
    /// Two exits and distillation between layers instead of all that says how exits are weighted, sampled and
    /// distilled.
    pub shallow_deep: Option<ShallowDeepConfig>,
}

/// The objective of FREE (Bae et al. 2023): `(S CE_S + L CE_L) / (S + L) + alpha L_KD`, with a shallow exit S
/// and the last layer L.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShallowDeepConfig {
    /// The shallow exit S, from 1, below the last layer.
    pub layer: usize,
    /// How much the distances between layers count, alpha; 0.5 as published.
    #[serde(default = "default_shallow_deep_distillation")]
    pub distillation: f64,
    /// Which layer learns from which.
    #[serde(default)]
    pub mapping: LayerMapping,
}

/// Which of the layers up to the shallow exit learns from which of the layers that teach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerMapping {
    /// The nearest one of the batch, in an order that never falls.
    #[default]
    Dynamic,
    /// The first one from the first, the second one from the second.
    Uniform,
    /// The shallow exit alone, from the last layer alone.
    Last,
}

/// How much each exit's loss counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExitWeights {
    /// Layer i has i / (1 + .. + L), as in the paper.
    Linear,
    /// All the same.
    Uniform,
    /// The last layer alone: ordinary training, for comparison.
    Last,
}

/// How the exits of a step are chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExitSampling {
    /// Drawn with probabilities proportional to their weights.
    #[default]
    Random,
    /// One after the other (LayerSkip's rotational curriculum), with their weights times the length of a
    /// turn.
    Rotating,
}

/// The second stage (CALM, section 3.5): a linear classifier, shared by all layers, on the frozen backbone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassifierConfig {
    /// Steps; 0 leaves the classifier out.
    pub steps: u64,
    /// Constant learning rate of AdamW.
    pub learning_rate: f64,
    /// Gives "exit" and "do not exit" the same total weight at each layer, however rare one of them is.
    pub class_balance: bool,
}

/// The third stage: what a confidence means at each layer, fitted to outputs of the finished model.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfidenceConfig {
    /// Training examples of each task whose sources are decoded; 0 leaves the maps out.
    pub examples: usize,
}

/// Held-out losses and scores while training.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ValidationConfig {
    /// Examples of each task, chosen by the seed; a tenth at most of training files that they are taken out
    /// of.
    pub examples: usize,
    /// Steps between two validations; 0 validates at the end only.
    pub every: u64,
    /// Rows decoded together.
    pub batch_size: usize,
    /// Stops the run after this many validations without a lower loss (the last exit's, mean over the tasks),
    /// and keeps the weights of the best one. 0 turns it off.
    pub patience: u64,
}

impl Default for ObjectiveConfig {
    fn default() -> Self {
        ObjectiveConfig {
            exit_weights: ExitWeights::Linear,
            last_weight: None,
            sampled_exits: None,
            sampling: ExitSampling::Random,
            distillation: 0.0,
            label_smoothing: 0.0,
            dropout: 0.1,
            layer_dropout: 0.0,
            shallow_deep: None,
        }
    }
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        ClassifierConfig { steps: 500, learning_rate: 1e-3, class_balance: false }
    }
}

impl Default for ConfidenceConfig {
    fn default() -> Self {
        ConfidenceConfig { examples: 400 }
    }
}

impl Default for ValidationConfig {
    fn default() -> Self {
        ValidationConfig { examples: 300, every: 0, batch_size: 32, patience: 0 }
    }
}

fn default_checkpoint_every() -> u64 {
    200
}
fn default_shallow_deep_distillation() -> f64 {
    0.5
}
fn default_true() -> bool {
    true
}
fn default_output_precision() -> Precision {
    Precision::Bf16
}
fn default_loss_spike() -> f64 {
    2.0
}
fn default_max_file_bytes() -> usize {
    16_000_000
}
fn default_metric() -> Metric {
    Metric::Bleu
}
fn default_task_weight() -> f64 {
    1.0
}
