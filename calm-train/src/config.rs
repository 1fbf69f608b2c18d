use std::ops::Range;
use std::path::{Path, PathBuf};

use calm_model::T5Config;
use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use crate::Error;
use crate::optimizer::OptimizerConfig;
use crate::schedule::ScheduleConfig;

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
    /// How the parameters follow the gradient.
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
    /// Exits below the last one that a step computes, at least 1, drawn by their weights so that the expected gradient is that of the
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
    /// Examples taken out of the training files, chosen by the seed; a tenth of them at most.
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
    /// The file is missing, is not TOML, has an unknown or missing key, or a value out of range; the message has the line
    /// and the key's path.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let invalid = |span: Option<Range<usize>>, reason: String| Error::Config {
            path: path.to_owned(),
            line: span.map(|span| 1 + text[..span.start].matches('\n').count()),
            reason,
        };
        let of_toml = |key: &str, error: &toml::de::Error| {
            // The root's path is a dot.
            let key = if matches!(key, "" | ".") { String::new() } else { format!("{key}: ") };
            invalid(error.span(), key + error.message())
        };
        let deserializer = toml::Deserializer::parse(&text).map_err(|error| of_toml("", &error))?;
        let config: TrainConfig = serde_path_to_error::deserialize(deserializer)
            .map_err(|error| of_toml(&error.path().to_string(), error.inner()))?;
        config.check().map_err(|(key, reason)| invalid(span_of(&text, &key), format!("{key} {reason}")))?;
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

    /// The first key whose value makes no sense, and why.
    fn check(&self) -> Result<(), (String, String)> {
        let fail = |key: &str, reason: String| Err((key.to_owned(), reason));
        let fractions = [
            ("objective.label_smoothing", self.objective.label_smoothing),
            ("objective.dropout", self.objective.dropout),
        ];
        if let Some((key, value)) = fractions.into_iter().find(|(_, value)| !(0.0..1.0).contains(value)) {
            return fail(key, format!("is {value}, but must be at least 0 and below 1"));
        }
        let positive = [
            ("model.d_model", self.model.d_model as f64),
            ("model.d_kv", self.model.d_kv as f64),
            ("model.d_ff", self.model.d_ff as f64),
            ("model.num_heads", self.model.num_heads as f64),
            ("model.num_layers", self.model.num_layers as f64),
            ("model.num_decoder_layers", self.model.num_decoder_layers as f64),
            ("classifier.learning_rate", self.classifier.learning_rate),
            ("data.max_source_tokens", self.data.max_source_tokens as f64),
            ("data.max_target_tokens", self.data.max_target_tokens as f64),
            ("validation.batch_size", self.validation.batch_size as f64),
            ("checkpoint_every", self.checkpoint_every as f64),
        ];
        if let Some((key, value)) =
            positive.into_iter().find(|(_, value)| !(value.is_finite() && *value > 0.0))
        {
            return fail(key, format!("is {value}, but must be positive"));
        }
        self.optimizer.check()?;
        self.schedule.check()?;
        if self.data.train.is_empty() {
            return fail("data.train", "lists no files".to_owned());
        }
        let (batch, source) = (self.data.batch_tokens, self.data.max_source_tokens);
        let longest = source.saturating_add(self.data.max_target_tokens);
        if batch < longest {
            return fail("data.batch_tokens", format!("is {batch}, but one example may have {longest}"));
        }
        if self.objective.sampled_exits == Some(0) {
            let reason = "is 0, which leaves the last exit alone: that is exit_weights = \"last\"";
            return fail("objective.sampled_exits", reason.to_owned());
        }
        if self.model.num_decoder_layers == 1 && self.classifier.steps > 0 {
            let reason = "must be 0 for a decoder of one layer, which has no early exit";
            return fail("classifier.steps", reason.to_owned());
        }
        Ok(())
    }
}

/// Where the value at a key path such as `schedule.steps` is, if the file has it.
fn span_of(text: &str, key: &str) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let (table, key) = match key.split_once('.') {
        Some((table, key)) => (document.get_ref().get(table)?.get_ref().as_table()?, key),
        None => (document.get_ref(), key),
    };
    Some(table.get(key)?.span())
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
