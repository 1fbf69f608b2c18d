//! Llama: the decoder layer by layer, and the head that all exits share.

mod decoding;
mod prompt;

use std::path::Path;

use calm_checkpoint::{EMBED_TOKENS, HEAD, LlamaConfig};
use calm_core::{EngineError, Prompt, Token};
use tch::{Device, Kind, Tensor};

use self::prompt::Read;
use crate::Error;
use crate::about::About;
use crate::rms_norm::RmsNorm;
use crate::weights::{Scope, Weights};

/// A Llama whose decoder may stop after any layer.
pub struct Llama {
    config: LlamaConfig,
    pub(crate) about: About,
    /// [vocab_size, hidden_size]
    embed_tokens: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// [vocab_size, hidden_size]
    head: Tensor,
    /// The rows of the head that exit heads end in: [tokens, hidden_size]
    exit_head: Tensor,
}

/// A layer, its parts named as in the checkpoint. Projections that read the same input are one matrix.
struct Layer {
    input_layernorm: RmsNorm,
    /// Queries, keys and values stacked: [inner + 2 * kv_inner, hidden_size].
    qkv_proj: Tensor,
    o_proj: Tensor,
    post_attention_layernorm: RmsNorm,
    /// Gate and input stacked: [2 * intermediate_size, hidden_size].
    gate_up_proj: Tensor,
    down_proj: Tensor,
}

impl Llama {
    /// Reads a Hugging Face checkpoint directory or a GGUF file and makes it ready to generate on `device` in
    /// f32. Tensors the model has no use for are listed by [`Llama::unexpected`].
    ///
    /// # Errors
    /// A file is missing, invalid or truncated, a tensor is missing or has another shape than the
    /// configuration says, or the exit heads beside it are not its own.
    pub fn load(path: &Path, device: Device) -> Result<Self, Error> {
        let mut model = Self::load_backbone(path, device)?;
        model.exit_head = model.about.read_exit_heads(path, &model.head)?;
        Ok(model)
    }

    /// The same without exit heads, whatever lies there: what they are trained for.
    ///
    /// # Errors
    /// As [`load`](Self::load), but for the heads.
    pub fn load_backbone(path: &Path, device: Device) -> Result<Self, Error> {
        let config = LlamaConfig::of_checkpoint(path)?;
        let weights = Weights::load(path, &config, device)?.map(|tensor| tensor.to_kind(Kind::Float));
        let mut model = tch::no_grad(|| Llama::new(&config, &weights))?;
        model.head = model.about.of_checkpoint(path, &config, model.head)?;
        Ok(model)
    }

    /// Builds the network over given weights.
    ///
    /// # Errors
    /// A tensor is missing or has another shape than the configuration says.
    pub fn new(config: &LlamaConfig, weights: &Weights) -> Result<Self, Error> {
        let root = weights.root();
        let table = [config.vocab_size, config.hidden_size];
        let embed_tokens = root.tensor(EMBED_TOKENS, &table)?;
        // The file decides whether the head is separate, never `tie_word_embeddings`.
        let head = root.optional_tensor(HEAD, &table)?.unwrap_or_else(|| embed_tokens.shallow_clone());
        let scope = root.enter("model");
        let layer = |number| Layer::new(&scope.enter("layers").enter(number), config);
        Ok(Llama {
            about: About::new(config.shape(), weights)?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_, _>>()?,
            norm: norm(&scope.enter("norm"), config)?,
            exit_head: head.shallow_clone(),
            head,
            embed_tokens,
            config: config.clone(),
        })
    }

    /// Another handle on the same weights, for another thread: tensors can be sent to a thread, not shared
    /// with one.
    pub fn share(&self) -> Self {
        Llama {
            config: self.config.clone(),
            about: self.about.clone(),
            embed_tokens: self.embed_tokens.shallow_clone(),
            layers: self.layers.iter().map(Layer::share).collect(),
            norm: self.norm.share(),
            head: self.head.shallow_clone(),
            exit_head: self.exit_head.shallow_clone(),
        }
    }

    pub(crate) fn read_sources<'a>(
        &'a self,
        sources: &[&[Token]],
    ) -> Result<Box<dyn Prompt + 'a>, EngineError> {
        Ok(Box::new(Read::new(self, sources)?))
    }

    /// `config.json`.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.head.device()
    }

    /// The output head [vocab_size, hidden_size], shared by all exits.
    pub fn head(&self) -> &Tensor {
        &self.head
    }

    /// SHA-256, in hexadecimal, of all that the outputs depend on: weight files, `config.json` and
    /// `tokenizer.json` where there is one. Empty for a model that was not loaded from files.
    pub fn fingerprint(&self) -> &str {
        &self.about.fingerprint
    }

    /// Tensors of the checkpoint that the model has no use for.
    pub fn unexpected(&self) -> &[String] {
        &self.about.unexpected
    }
}

impl Layer {
    fn new(scope: &Scope<'_>, config: &LlamaConfig) -> Result<Self, Error> {
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let (inner, kv_inner) = (config.inner(), config.kv_inner());
        let (attention, mlp) = (scope.enter("self_attn"), scope.enter("mlp"));
        let projections = [
            attention.tensor("q_proj.weight", &[inner, hidden])?,
            attention.tensor("k_proj.weight", &[kv_inner, hidden])?,
            attention.tensor("v_proj.weight", &[kv_inner, hidden])?,
        ];
        Ok(Layer {
            input_layernorm: norm(&scope.enter("input_layernorm"), config)?,
            qkv_proj: Tensor::cat(&projections, 0),
            o_proj: attention.tensor("o_proj.weight", &[hidden, inner])?,
            post_attention_layernorm: norm(&scope.enter("post_attention_layernorm"), config)?,
            gate_up_proj: mlp.stacked(&["gate_proj.weight", "up_proj.weight"], [intermediate, hidden])?,
            down_proj: mlp.tensor("down_proj.weight", &[hidden, intermediate])?,
        })
    }

    fn share(&self) -> Self {
        Layer {
            input_layernorm: self.input_layernorm.share(),
            qkv_proj: self.qkv_proj.shallow_clone(),
            o_proj: self.o_proj.shallow_clone(),
            post_attention_layernorm: self.post_attention_layernorm.share(),
            gate_up_proj: self.gate_up_proj.shallow_clone(),
            down_proj: self.down_proj.shallow_clone(),
        }
    }
}

fn norm(scope: &Scope<'_>, config: &LlamaConfig) -> Result<RmsNorm, Error> {
    RmsNorm::new(scope, config.hidden_size, config.rms_norm_eps)
}
