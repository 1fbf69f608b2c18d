//! From a checkpoint to a network: finding the tensors and packing them.

use std::path::Path;
use std::sync::{Arc, Mutex};

use calm_checkpoint::{CacheType, EMBED_TOKENS, FeedForward, HEAD, LlamaConfig, LoadOptions, Tokenizer};
use calm_core::BackboneShape;

use super::decoder::{DecoderLayer, Network};
use crate::Error;
use crate::attention::Heads;
use crate::elementwise::RmsNorm;
use crate::head::Head;
use crate::layers::{DenseReluDense, SelfAttention};
use crate::linear::{Linear, Packing};
use crate::origin::{Found, Origin};
use crate::positions::Rotary;
use crate::weights::{Stored, Table, Weights};

impl Network {
    /// Reads a checkpoint directory or a GGUF file.
    pub(super) fn load(path: &Path, options: &LoadOptions) -> Result<Self, Error> {
        let config = LlamaConfig::of_checkpoint(path)?;
        // A vocabulary padded to a round size has logits that stand for no token and must never be emitted.
        let tokenizer = Tokenizer::of_checkpoint(path, &config)?;
        let tokens = tokenizer.map_or(usize::MAX, |tokenizer| tokenizer.vocab_size());
        let weights = Weights::load(path, &config)?;
        let mut network = Network::new(&config, &weights, options, tokens)?;
        let Network { origin, shape, head, .. } = &mut network;
        let table = [config.vocab_size, config.hidden_size];
        let found = Found { checkpoint: path, weights: &weights, norm: &head.norm, options };
        origin.find(found, shape, || {
            let own = weights.optional_tensor(HEAD, &table)?;
            own.map_or_else(|| weights.tensor(EMBED_TOKENS, &table), Ok)
        })?;
        Ok(network)
    }

    /// Packs weights. Outputs have at most the first `tokens` of the vocabulary.
    pub(super) fn new(
        config: &LlamaConfig,
        weights: &Weights,
        options: &LoadOptions,
        tokens: usize,
    ) -> Result<Self, Error> {
        let table = [config.vocab_size, config.hidden_size];
        let origin = Origin::new(weights, options, &config.shape(), &projection(0, "q"))?;
        let build = Builder { config, weights, packing: origin.packing, cache_type: origin.cache_type };
        // The bytes of the file are gone before the layers are read.
        let (embed_tokens, head) = {
            let embeddings = weights.tensor(EMBED_TOKENS, &table)?;
            let own_head = weights.optional_tensor(HEAD, &table)?;
            let is_whole = embeddings.rows() <= tokens;
            let embed_tokens = Table::new(embeddings.clone(), origin.packing);
            // A head that is the embedding is packed once.
            let head = match own_head {
                None if is_whole => embed_tokens.clone(),
                own => Table::new(own.unwrap_or(embeddings).first_rows(tokens), origin.packing),
            };
            (embed_tokens, head)
        };
        let mut shape = BackboneShape { vocab_size: head.rows(), ..config.shape() };
        let layers: Vec<_> =
            (0..config.num_hidden_layers).map(|i| build.layer(i)).collect::<Result<_, _>>()?;
        let head = Head::new(build.norm("model.norm")?, head, origin.packing);
        // Weights as they are packed, which may be narrower than 4 bytes.
        shape.bytes.layer = layers[0].bytes() as f64;
        shape.bytes.skipped_layer = layers[0].self_attn.kv.bytes() as f64;
        shape.bytes.head = head.bytes() as f64;
        Ok(Network {
            config: config.clone(),
            shape,
            origin,
            embed_tokens,
            layers,
            head,
            rotary: Mutex::new(Arc::new(Rotary::new(config, 0))),
        })
    }
}

/// Finds the tensors of a network and packs them.
struct Builder<'a> {
    config: &'a LlamaConfig,
    weights: &'a Weights,
    packing: Packing,
    cache_type: CacheType,
}

fn projection(layer: i64, name: &str) -> String {
    format!("model.layers.{layer}.self_attn.{name}_proj.weight")
}

impl Builder<'_> {
    fn layer(&self, layer: i64) -> Result<DecoderLayer, Error> {
        let LlamaConfig { hidden_size, intermediate_size, .. } = *self.config;
        let [inner, kv_inner] = [self.config.inner(), self.config.kv_inner()];
        let base = format!("model.layers.{layer}");
        let project = |name, rows| self.weights.tensor(&projection(layer, name), &[rows, hidden_size]);
        let qkv = [project("q", inner)?, project("k", kv_inner)?, project("v", kv_inner)?];
        let qkv = Linear::parallel(&qkv, self.packing);
        let o = self.weights.tensor(&projection(layer, "o"), &[hidden_size, inner])?;
        let mlp = |name: &str, shape: [i64; 2]| {
            self.weights.tensor(&format!("{base}.mlp.{name}_proj.weight"), &shape)
        };
        let [gate, up] =
            [mlp("gate", [intermediate_size, hidden_size])?, mlp("up", [intermediate_size, hidden_size])?];
        let down = mlp("down", [hidden_size, intermediate_size])?;
        Ok(DecoderLayer {
            self_attn: SelfAttention {
                heads: self.heads(),
                norm: self.norm(&format!("{base}.input_layernorm"))?,
                kv: qkv.without_first(),
                qkv,
                o: self.linear(&o),
            },
            mlp: DenseReluDense {
                norm: self.norm(&format!("{base}.post_attention_layernorm"))?,
                wi: Linear::gated(&gate, &up, self.packing),
                wo: self.linear(&down),
                activation: FeedForward::GatedSilu,
            },
        })
    }

    fn heads(&self) -> Heads {
        let count = self.config.num_attention_heads as usize;
        Heads {
            count,
            group: count / self.config.num_key_value_heads as usize,
            d_kv: self.config.head_dim as usize,
            scale: (self.config.head_dim as f32).sqrt().recip(),
            cache_type: self.cache_type,
        }
    }

    fn linear(&self, matrix: &Stored) -> Linear {
        Linear::new(matrix, self.packing)
    }

    fn norm(&self, path: &str) -> Result<RmsNorm, Error> {
        let weight = self.weights.tensor(&format!("{path}.weight"), &[self.config.hidden_size])?.to_vec();
        Ok(RmsNorm { weight, epsilon: self.config.rms_norm_eps as f32, scale: 1.0 })
    }
}
