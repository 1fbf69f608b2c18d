use std::path::{Path, PathBuf};

use calm_model::T5Config;
use serde::{Deserialize, Serialize};

use crate::Error;

/// A training run, as `calm train CONFIG.toml` reads it. Paths are relative to the directory the command runs in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Decides initialisation, order of the data, dropout and the sampling of exits.
    pub seed: u64,
    /// Directory the finished checkpoint is written to, in the Hugging Face layout.
    pub output: PathBuf,
    /// Directory of the resumable checkpoint, the log and nothing else.
    pub checkpoints: PathBuf,
    /// `tokenizer.json`; copied next to the weights.
    pub tokenizer: PathBuf,
    /// Type of activations and matrix products. Parameters, optimiser and loss are f32 whatever it is.
    #[serde(default)]
    pub precision: Precision,
    /// The network.
    pub model: ModelConfig,
    /// What it learns from.
    pub data: DataConfig,
    /// The multi-exit loss.
    #[serde(default)]
    pub objective: ObjectiveConfig,
    /// AdamW.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// Learning rate over the steps.
    pub schedule: ScheduleConfig,
    /// The exit classifier, trained on the finished backbone.
    #[serde(default)]
    pub classifier: ClassifierConfig,
    /// Scores on held-out examples while training.
    #[serde(default)]
    pub validation: ValidationConfig,
    /// Steps between two checkpoints.
    #[serde(default = "default_checkpoint_every")]
    pub checkpoint_every: u64,
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

/// Shape of a network trained from random weights; always the T5 v1.1 kind (gated gelu) with a tied or separate head.
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
    /// JSON Lines or Parquet files.
    pub train: Vec<PathBuf>,
    /// Column of the model's input.
    #[serde(default = "default_source")]
    pub source: String,
    /// Column of the output to learn.
    #[serde(default = "default_target")]
    pub target: String,
    /// Longer sources are cut.
    pub max_source_tokens: usize,
    /// Examples with longer targets are left out.
    pub max_target_tokens: usize,
    /// Padded source tokens plus padded target tokens of a batch, at most.
    pub batch_tokens: usize,
}

/// The weighted multi-exit loss (CALM, equation 6).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectiveConfig {
    /// How much each exit's loss counts.
    pub exit_weights: ExitWeights,
    /// Exits below the last one that a step computes, drawn by their weights so that the expected gradient is that of the
    /// full sum. None computes all: the head over the vocabulary is then most of the work of a step.
    pub sampled_exits: Option<usize>,
    /// Probability mass spread over the vocabulary.
    pub label_smoothing: f64,
    /// Dropout rate everywhere T5 has it.
    pub dropout: f64,
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

/// AdamW (Loshchilov and Hutter 2019).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Largest learning rate of the schedule.
    pub learning_rate: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of their squares.
    pub beta2: f64,
    /// Added to the root of the latter.
    pub epsilon: f64,
    /// Shrinks matrices (not the norms' weights) by this times the learning rate in each step.
    pub weight_decay: f64,
    /// Longer gradients are shortened to this norm.
    pub clip_norm: f64,
}

/// Learning rate over the steps: linear warm-up, then the curve.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Steps in all.
    pub steps: u64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// What follows.
    #[serde(default)]
    pub curve: Curve,
    /// Length of the final linear decay of the `stable` curve.
    #[serde(default)]
    pub decay_steps: u64,
}

/// Shape of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Curve {
    /// Half a cosine down to 0.
    #[default]
    Cosine,
    /// Constant, then a linear decay to 0 over the last `decay_steps`. Its constant part is the same for every `steps`, so a
    /// run can be lengthened.
    Stable,
    /// The inverse square root of the step.
    InverseSqrt,
}

/// The second stage (CALM, section 3.5): a linear classifier, shared by all layers, on the frozen backbone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassifierConfig {
    /// Steps; 0 leaves the classifier out.
    pub steps: u64,
    /// Constant learning rate of AdamW.
    pub learning_rate: f64,
}

/// Held-out scores while training.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ValidationConfig {
    /// Examples taken out of the training files by a hash of their position under the seed.
    pub examples: usize,
    /// Steps between two validations; 0 validates at the end only.
    pub every: u64,
    /// Rows decoded together.
    pub batch_size: usize,
}

impl TrainConfig {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// The file is missing, is not TOML, has an unknown or missing key, or a value out of range; the message has the key's path.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let invalid = |reason: String| Error::Config { path: path.to_owned(), reason };
        let deserializer = toml::Deserializer::parse(&text).map_err(|error| invalid(error.to_string()))?;
        let config: TrainConfig = serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let key = error.path().to_string();
            invalid(format!("{key}: {}", error.into_inner()))
        })?;
        config.check().map_err(invalid)?;
        Ok(config)
    }

    /// The network's `config.json` over a vocabulary of the given size.
    pub fn t5_config(&self, vocab_size: usize) -> T5Config {
        let model = &self.model;
        T5Config {
            d_model: model.d_model,
            d_kv: model.d_kv,
            d_ff: model.d_ff,
            num_layers: model.num_layers,
            num_decoder_layers: Some(model.num_decoder_layers),
            num_heads: model.num_heads,
            vocab_size: vocab_size as i64,
            tie_word_embeddings: model.tie_word_embeddings,
            scale_decoder_outputs: Some(model.tie_word_embeddings),
            feed_forward_proj: calm_model::FeedForward::GatedGelu,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            pad_token_id: 0,
            eos_token_id: 1,
            decoder_start_token_id: Some(0),
        }
    }

    fn check(&self) -> Result<(), String> {
        let fractions = [
            ("objective.label_smoothing", self.objective.label_smoothing),
            ("objective.dropout", self.objective.dropout),
            ("optimizer.beta1", self.optimizer.beta1),
            ("optimizer.beta2", self.optimizer.beta2),
        ];
        if let Some((key, value)) = fractions.into_iter().find(|(_, value)| !(0.0..1.0).contains(value)) {
            return Err(format!("{key} is {value}, but must be at least 0 and below 1"));
        }
        let positive = [
            ("optimizer.learning_rate", self.optimizer.learning_rate),
            ("optimizer.epsilon", self.optimizer.epsilon),
            ("optimizer.clip_norm", self.optimizer.clip_norm),
            ("classifier.learning_rate", self.classifier.learning_rate),
            ("data.max_source_tokens", self.data.max_source_tokens as f64),
            ("data.max_target_tokens", self.data.max_target_tokens as f64),
            ("schedule.steps", self.schedule.steps as f64),
            ("validation.batch_size", self.validation.batch_size as f64),
            ("checkpoint_every", self.checkpoint_every as f64),
        ];
        if let Some((key, value)) = positive.into_iter().find(|(_, value)| value.is_nan() || *value <= 0.0) {
            return Err(format!("{key} is {value}, but must be positive"));
        }
        if self.data.train.is_empty() {
            return Err("data.train lists no files".to_owned());
        }
        let longest = self.data.max_source_tokens + self.data.max_target_tokens;
        if self.data.batch_tokens < longest {
            return Err(format!(
                "data.batch_tokens is {}, but one example may have {longest}",
                self.data.batch_tokens
            ));
        }
        let schedule = &self.schedule;
        if schedule.warmup_steps + schedule.decay_steps > schedule.steps {
            return Err("schedule.warmup_steps and schedule.decay_steps exceed schedule.steps".to_owned());
        }
        self.t5_config(8).check().map_err(|reason| format!("model.{reason}"))
    }
}

impl Default for ObjectiveConfig {
    fn default() -> Self {
        ObjectiveConfig {
            exit_weights: ExitWeights::Linear,
            sampled_exits: None,
            label_smoothing: 0.0,
            dropout: 0.1,
        }
    }
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        OptimizerConfig {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-8,
            weight_decay: 0.01,
            clip_norm: 1.0,
        }
    }
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        ClassifierConfig { steps: 500, learning_rate: 1e-3 }
    }
}

impl Default for ValidationConfig {
    fn default() -> Self {
        ValidationConfig { examples: 300, every: 0, batch_size: 32 }
    }
}

fn default_checkpoint_every() -> u64 {
    200
}
fn default_true() -> bool {
    true
}
fn default_source() -> String {
    "source".to_owned()
}
fn default_target() -> String {
    "target".to_owned()
}
