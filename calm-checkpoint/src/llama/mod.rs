//! Llama and the models that share its network, such as TinyLlama and SmolLM2: configuration and tensors.

mod file;
mod rope;
mod tensors;

use std::path::Path;

use calm_core::{BackboneShape, Cost, Token};
use calm_gguf::Gguf;

pub use self::rope::RopeScaling;
pub use self::tensors::EMBED_TOKENS;
use crate::config_keys::{check_ends, check_epsilon, check_layers, check_sizes};
use crate::model_type::Naming;
use crate::{Error, HeadParts, NetworkConfig, Parameter, Tokenizer};

/// Values of `model_type` in `config.json` that mean the network of Llama.
pub const LLAMA_MODEL_TYPES: &[&str] = &["llama"];

/// `config.json` of a Hugging Face Llama checkpoint: the keys that decide what is computed, under their
/// published names.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Width of the residual stream.
    pub hidden_size: i64,
    /// Width of the feed-forward layer.
    pub intermediate_size: i64,
    /// Number of layers.
    pub num_hidden_layers: i64,
    /// Number of heads of the queries.
    pub num_attention_heads: i64,
    /// Number of heads of keys and values, each of which serves as many heads of the queries.
    pub num_key_value_heads: i64,
    /// Width of one head, an even number; `num_attention_heads * head_dim` need not equal `hidden_size`.
    pub head_dim: i64,
    /// Number of rows of the embedding and of columns of the logits.
    pub vocab_size: i64,
    /// Number of tokens that a prompt and its output may have together.
    pub max_position_embeddings: i64,
    /// Number that every normalisation adds to the variance.
    pub rms_norm_eps: f64,
    /// Base of the wavelengths of the rotary position embedding.
    pub rope_theta: f64,
    /// How the rotary position embedding was stretched to longer texts.
    pub rope_scaling: RopeScaling,
    /// Whether the output head was trained as the embedding.
    ///
    /// It never decides which tensor is the head: the file does.
    pub tie_word_embeddings: bool,
    /// The token that texts begin with, if the tokenizer puts it there.
    pub bos_token_id: Option<Token>,
    /// The tokens that end a sequence: one, or a list in the file.
    pub eos_token_id: Vec<Token>,
    /// The tokens that end an output, where `generation_config.json` has a list of its own.
    pub generation_eos_token_id: Option<Vec<Token>>,
}

impl LlamaConfig {
    /// Reads the configuration of a checkpoint: a directory, or a GGUF file.
    ///
    /// # Errors
    /// Fails as [`load`](Self::load) does, or if the file's metadata describe no such network.
    pub fn of_checkpoint(path: &Path) -> Result<Self, Error> {
        match crate::files::is_gguf(path) {
            true => Self::of_gguf(&Gguf::open(path)?),
            false => Self::load(&path.join("config.json")),
        }
    }

    /// Returns a published shape by its name: `smollm2-135m`, `smollm2-360m` or `tinyllama-1.1b`.
    pub fn published(name: &str) -> Option<Self> {
        let [hidden_size, intermediate_size, layers, heads, kv_heads, vocab_size, positions] = match name {
            "smollm2-135m" => [576, 1536, 30, 9, 3, 49_152, 8192],
            "smollm2-360m" => [960, 2560, 32, 15, 5, 49_152, 8192],
            "tinyllama-1.1b" => [2048, 5632, 22, 32, 4, 32_000, 2048],
            _ => return None,
        };
        let is_smol = name.starts_with("smollm2");
        Some(LlamaConfig {
            hidden_size,
            intermediate_size,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim: 64,
            vocab_size,
            max_position_embeddings: positions,
            rms_norm_eps: 1e-5,
            rope_theta: if is_smol { 100_000.0 } else { 10_000.0 },
            rope_scaling: RopeScaling::Default,
            tie_word_embeddings: is_smol,
            bos_token_id: Some(1),
            eos_token_id: vec![2],
            generation_eos_token_id: None,
        })
    }

    /// Reads and checks `config.json` as transformers 4 or 5 wrote it, and the special tokens of
    /// `generation_config.json` beside it if there is one. Keys that are left out have transformers'
    /// defaults.
    ///
    /// # Errors
    /// Fails if the file is missing, is not JSON, holds a value that no Llama has, or asks for something that
    /// is not implemented, such as biases or other kinds of scaling.
    pub fn load(path: &Path) -> Result<Self, Error> {
        file::read(path)
    }

    /// Writes `config.json` into a checkpoint directory, with the keys by which transformers 5 knows it.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        file::write(self, dir)
    }

    /// Names the first key whose value makes no sense.
    ///
    /// # Errors
    /// A sentence that says what is wrong with that key.
    pub fn check(&self) -> Result<(), String> {
        check_sizes(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        check_layers(&[("num_hidden_layers", self.num_hidden_layers)])?;
        check_epsilon("rms_norm_eps", self.rms_norm_eps)?;
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        if heads % kv_heads != 0 {
            return Err(format!(
                "num_attention_heads is {heads}, but must be a multiple of num_key_value_heads, which is {kv_heads}"
            ));
        }
        if self.head_dim % 2 != 0 {
            return Err(format!(
                "head_dim is {}, but must be even, since the position turns pairs of numbers",
                self.head_dim
            ));
        }
        rope::check(self.rope_theta, &self.rope_scaling)?;
        check_ends(self.end_tokens())
    }

    /// Width of all heads of the queries together.
    pub fn inner(&self) -> i64 {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all heads of the keys together, and of those of the values.
    pub fn kv_inner(&self) -> i64 {
        self.num_key_value_heads * self.head_dim
    }

    /// The tokens that end an output, at least one.
    pub fn end_tokens(&self) -> &[Token] {
        self.generation_eos_token_id.as_ref().unwrap_or(&self.eos_token_id)
    }

    /// By how much the position turns each pair of numbers of a head, in radians a token: `[head_dim / 2]`.
    /// Numbers `i` and `i + head_dim / 2` of a query or key are a pair.
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        rope::inverse_frequencies(self.head_dim, self.rope_theta, &self.rope_scaling)
    }

    /// What the decoding loop and the cost model know of this network, with weights of 4 bytes.
    ///
    /// A token of the prompt is a key like one of the output. A skipped layer has its key and value
    /// projected, whose heads are fewer than those of the queries.
    pub fn shape(&self) -> BackboneShape {
        let [hidden, inner, kv_inner, intermediate, vocab_size] =
            [self.hidden_size, self.inner(), self.kv_inner(), self.intermediate_size, self.vocab_size]
                .map(|size| size as f64);
        let kv_weights = 2.0 * hidden * kv_inner;
        let layer_weights = 2.0 * hidden * inner + kv_weights + 3.0 * hidden * intermediate;
        let flops_per_key = 4.0 * inner;
        // A key and a value of 4 bytes an element.
        let bytes_per_key = 8.0 * kv_inner;
        BackboneShape {
            num_layers: self.num_hidden_layers as usize,
            d_model: self.hidden_size as usize,
            vocab_size: self.vocab_size as usize,
            eos_tokens: self.end_tokens().to_vec(),
            flops: Cost {
                layer: 2.0 * layer_weights,
                layer_per_key: flops_per_key,
                layer_per_source_token: flops_per_key,
                first_reach_per_source_token: 0.0,
                skipped_layer: 2.0 * kv_weights,
                head: 2.0 * vocab_size * hidden,
                exit_head: 0.0,
            },
            bytes: Cost {
                layer: 4.0 * layer_weights,
                layer_per_key: bytes_per_key,
                layer_per_source_token: bytes_per_key,
                first_reach_per_source_token: 0.0,
                skipped_layer: 4.0 * kv_weights,
                head: 4.0 * vocab_size * hidden,
                exit_head: 0.0,
            },
        }
    }
}

impl NetworkConfig for LlamaConfig {
    fn naming(&self) -> &'static Naming {
        &tensors::NAMING
    }

    fn parameters(&self) -> Vec<Parameter> {
        tensors::parameters(self)
    }

    fn optional_tensors(&self) -> Vec<(&'static str, Vec<i64>)> {
        vec![(crate::HEAD, vec![self.vocab_size, self.hidden_size])]
    }

    fn head_parts(&self) -> HeadParts {
        let (norm, epsilon) = ("model.norm.weight", self.rms_norm_eps);
        HeadParts { norm, epsilon, scale: 1.0, embedding: EMBED_TOKENS }
    }

    fn shape(&self) -> BackboneShape {
        LlamaConfig::shape(self)
    }

    fn end_tokens(&self) -> &[Token] {
        LlamaConfig::end_tokens(self)
    }

    fn context(&self) -> Option<usize> {
        usize::try_from(self.max_position_embeddings).ok()
    }

    fn load_tokenizer(&self, path: &Path) -> Result<Tokenizer, Error> {
        Tokenizer::of_prompts(path, self)
    }

    fn save(&self, dir: &Path) -> Result<(), Error> {
        LlamaConfig::save(self, dir)
    }
}
