//! T5: its configuration, its tensors and the buckets of its relative positions.

mod file;
mod position;
mod tensors;

use std::path::Path;

use calm_core::{BackboneShape, Cost, Token};
use calm_gguf::Gguf;
use serde::{Deserialize, Serialize};

pub use self::position::{Direction, bucket};
pub use self::tensors::{DECODER_EMBEDDING, ENCODER_EMBEDDING, SHARED};
use crate::config_keys::{check_ends, check_epsilon, check_layers, check_sizes, one_or_list};
use crate::model_type::Naming;
use crate::{Error, HeadParts, NetworkConfig, Parameter, Tokenizer};

/// Values of `model_type` in `config.json` that mean the network of T5.
pub const T5_MODEL_TYPES: &[&str] = &["t5", "mt5"];

/// `config.json` of a Hugging Face T5 checkpoint: the keys that decide what is computed, under their
/// published names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct T5Config {
    /// Width of the residual stream.
    pub d_model: i64,
    /// Width of one attention head; `num_heads * d_kv` need not equal `d_model`.
    pub d_kv: i64,
    /// Width of the feed-forward layer.
    pub d_ff: i64,
    /// Number of encoder blocks.
    pub num_layers: i64,
    /// Number of decoder blocks; as many as encoder blocks if the key is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_decoder_layers: Option<i64>,
    /// Number of attention heads.
    pub num_heads: i64,
    /// Number of rows of the embedding and of columns of the logits.
    pub vocab_size: i64,
    /// Number of buckets of the relative position bias.
    pub relative_attention_num_buckets: i64,
    /// Distance from which on all positions share the last bucket.
    pub relative_attention_max_distance: i64,
    /// Number that every normalisation adds to the variance.
    pub layer_norm_epsilon: f64,
    /// The feed-forward variant: `relu` (v1.0), `gated-gelu` (v1.1, FLAN) or `gated-silu`.
    pub feed_forward_proj: FeedForward,
    /// Whether the output head was trained as the embedding.
    ///
    /// It never decides which tensor is the head: the file does.
    pub tie_word_embeddings: bool,
    /// Whether states are scaled by `d_model^-0.5` before the head.
    ///
    /// transformers 5 writes this key; before that, tied embeddings implied it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_decoder_outputs: Option<bool>,
    /// The token that fills up batches of unequal length.
    pub pad_token_id: Token,
    /// The tokens that end a sequence: one, or a list in the file.
    #[serde(serialize_with = "one_or_list")]
    pub eos_token_id: Vec<Token>,
    /// The first input of the decoder; the padding token if there is none. That of `generation_config.json`
    /// has precedence.
    pub decoder_start_token_id: Option<Token>,
    /// The tokens that end an output, where `generation_config.json` has a list of its own.
    #[serde(skip)]
    pub generation_eos_token_id: Option<Vec<Token>>,
}

/// The feed-forward variants of the T5 family, as `feed_forward_proj` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedForward {
    /// One projection: `wo(relu(wi x))`
    Relu,
    /// A gate with the tanh approximation of gelu: `wo(gelu(wi_0 x) * wi_1 x)`
    GatedGelu,
    /// A gate with silu: `wo(silu(wi_0 x) * wi_1 x)`
    GatedSilu,
}

impl FeedForward {
    /// Whether there are two input projections.
    pub fn is_gated(self) -> bool {
        self != FeedForward::Relu
    }
}

impl T5Config {
    /// Returns a published shape by its name.
    ///
    /// The names are `t5-small`, `t5-base` and `t5-large` (v1.0), `t5-v1_1-small`, `t5-v1_1-base` and
    /// `t5-v1_1-large` (which are also the shapes of FLAN).
    pub fn published(name: &str) -> Option<Self> {
        let [d_model, d_ff, layers, num_heads] = match name {
            "t5-small" => [512, 2048, 6, 8],
            "t5-base" => [768, 3072, 12, 12],
            "t5-large" => [1024, 4096, 24, 16],
            "t5-v1_1-small" => [512, 1024, 8, 6],
            "t5-v1_1-base" => [768, 2048, 12, 12],
            "t5-v1_1-large" => [1024, 2816, 24, 16],
            _ => return None,
        };
        let is_first_version = !name.contains("v1_1");
        Some(T5Config {
            d_model,
            d_kv: 64,
            d_ff,
            num_layers: layers,
            num_decoder_layers: None,
            num_heads,
            vocab_size: 32_128,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: if is_first_version { FeedForward::Relu } else { FeedForward::GatedGelu },
            tie_word_embeddings: is_first_version,
            scale_decoder_outputs: None,
            pad_token_id: 0,
            eos_token_id: vec![1],
            decoder_start_token_id: Some(0),
            generation_eos_token_id: None,
        })
    }

    /// Reads the configuration of a checkpoint: a directory, or a GGUF file.
    ///
    /// # Errors
    /// Fails as [`load`](Self::load) and [`of_gguf`](Self::of_gguf) do.
    pub fn of_checkpoint(path: &Path) -> Result<Self, Error> {
        match crate::files::is_gguf(path) {
            true => Self::of_gguf(&Gguf::open(path)?),
            false => Self::load(&path.join("config.json")),
        }
    }

    /// Reads and checks `config.json`, and the special tokens of `generation_config.json` beside it if there
    /// is one. Keys that are left out have transformers' defaults for the file's `model_type`.
    ///
    /// # Errors
    /// Fails if the file is missing, is not JSON, or holds a value that no T5 has.
    pub fn load(path: &Path) -> Result<Self, Error> {
        file::read(path)
    }

    /// Writes `config.json` into a checkpoint directory, with the keys by which transformers knows it.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Published<'a> {
            architectures: [&'static str; 1],
            model_type: &'static str,
            #[serde(flatten)]
            config: &'a T5Config,
        }
        let path = dir.join("config.json");
        let config =
            Published { architectures: ["T5ForConditionalGeneration"], model_type: "t5", config: self };
        Ok(calm_files::write_json(&path, &config)?)
    }

    /// Names the first key whose value makes no sense.
    ///
    /// # Errors
    /// A sentence that says what is wrong with that key.
    pub fn check(&self) -> Result<(), String> {
        let positive = [
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("d_ff", self.d_ff),
            ("num_heads", self.num_heads),
            ("vocab_size", self.vocab_size),
            ("relative_attention_max_distance", self.relative_attention_max_distance),
        ];
        check_sizes(&positive)?;
        check_layers(&[("num_layers", self.num_layers), ("num_decoder_layers", self.decoder_layers())])?;
        check_epsilon("layer_norm_epsilon", self.layer_norm_epsilon)?;
        // The number of bidirectional buckets is halved twice, and the far half is spaced logarithmically.
        let buckets = self.relative_attention_num_buckets;
        if buckets < 4 || buckets % 2 != 0 || self.relative_attention_max_distance <= buckets / 2 {
            return Err(format!(
                "relative_attention_num_buckets is {buckets}, but must be even, at least 4 and below twice relative_attention_max_distance"
            ));
        }
        check_ends(self.end_tokens())
    }

    /// Number of decoder blocks.
    pub fn decoder_layers(&self) -> i64 {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    /// Width of all heads together.
    pub fn inner(&self) -> i64 {
        self.num_heads * self.d_kv
    }

    /// The first input of the decoder.
    pub fn start_token(&self) -> Token {
        self.decoder_start_token_id.unwrap_or(self.pad_token_id)
    }

    /// The tokens that end an output, at least one.
    pub fn end_tokens(&self) -> &[Token] {
        self.generation_eos_token_id.as_ref().unwrap_or(&self.eos_token_id)
    }

    /// What the decoding loop and the cost model know of this network, with weights of 4 bytes.
    ///
    /// FLOPs are the published formula (Elbayad et al. 2020, appendix B) with the network's own dimensions:
    /// attention `inner` wide, and three matrices in a gated feed-forward network. A layer has six
    /// projections: q, k, v and o of self-attention, q and o of cross-attention. Scores and weighted sums
    /// take 4 `inner` for each key.
    pub fn shape(&self) -> BackboneShape {
        let [d_model, inner, d_ff, vocab_size] =
            [self.d_model, self.inner(), self.d_ff, self.vocab_size].map(|size| size as f64);
        let projection = d_model * inner;
        let matrices = if self.feed_forward_proj.is_gated() { 3.0 } else { 2.0 };
        let layer_weights = 6.0 * projection + matrices * d_model * d_ff;
        BackboneShape {
            num_layers: self.decoder_layers() as usize,
            d_model: self.d_model as usize,
            vocab_size: self.vocab_size as usize,
            eos_tokens: self.end_tokens().to_vec(),
            flops: Cost {
                layer: 2.0 * layer_weights,
                layer_per_key: 4.0 * inner,
                layer_per_source_token: 4.0 * inner,
                first_reach_per_source_token: 4.0 * projection,
                skipped_layer: 4.0 * projection,
                head: 2.0 * vocab_size * d_model,
                exit_head: 0.0,
            },
            // A key and a value of 4 bytes an element.
            bytes: Cost {
                layer: 4.0 * layer_weights,
                layer_per_key: 8.0 * inner,
                layer_per_source_token: 8.0 * inner,
                first_reach_per_source_token: 4.0 * d_model,
                skipped_layer: 8.0 * projection,
                head: 4.0 * vocab_size * d_model,
                exit_head: 0.0,
            },
        }
    }

    /// The factor on a state before the output head.
    ///
    /// transformers 5 writes `tie_word_embeddings: true` into every file, so its own `scale_decoder_outputs`
    /// has precedence.
    pub fn head_scale(&self) -> f64 {
        if self.scale_decoder_outputs.unwrap_or(self.tie_word_embeddings) {
            (self.d_model as f64).powf(-0.5)
        } else {
            1.0
        }
    }
}

impl NetworkConfig for T5Config {
    fn naming(&self) -> &'static Naming {
        &tensors::NAMING
    }

    fn parameters(&self) -> Vec<Parameter> {
        tensors::parameters(self)
    }

    fn optional_tensors(&self) -> Vec<(&'static str, Vec<i64>)> {
        tensors::TABLES.map(|name| (name, vec![self.vocab_size, self.d_model])).to_vec()
    }

    fn head_parts(&self) -> HeadParts {
        let (norm, epsilon) = ("decoder.final_layer_norm.weight", self.layer_norm_epsilon);
        HeadParts { norm, epsilon, scale: self.head_scale(), embedding: SHARED }
    }

    fn shape(&self) -> BackboneShape {
        T5Config::shape(self)
    }

    fn end_tokens(&self) -> &[Token] {
        T5Config::end_tokens(self)
    }

    fn load_tokenizer(&self, path: &Path) -> Result<Tokenizer, Error> {
        Tokenizer::load(path)?.for_model(self)
    }

    fn save(&self, dir: &Path) -> Result<(), Error> {
        T5Config::save(self, dir)
    }
}
