//! From a checkpoint to a network: finding the tensors and packing them.

use std::path::Path;

use calm_checkpoint::{
    CacheType, DECODER_EMBEDDING, ENCODER_EMBEDDING, HEAD, LoadOptions, SHARED, T5Config, Tokenizer,
};
use calm_core::BackboneShape;

use super::Network;
use super::decoder::{Decoder, DecoderBlock, EncDecAttention};
use super::encoder::{Encoder, EncoderBlock};
use crate::Error;
use crate::attention::Heads;
use crate::elementwise::RmsNorm;
use crate::head::Head;
use crate::layers::{DenseReluDense, SelfAttention};
use crate::linear::{Linear, Packing};
use crate::origin::{Found, Origin};
use crate::weights::{Stored, Table, Weights};

impl Network {
    /// Reads a checkpoint directory.
    pub(super) fn load(dir: &Path, options: &LoadOptions) -> Result<Self, Error> {
        let config = T5Config::of_checkpoint(dir)?;
        // A vocabulary padded to a round size has logits that stand for no token and must never be emitted.
        let tokenizer = Tokenizer::of_checkpoint(dir, &config)?;
        let tokens = tokenizer.map_or(usize::MAX, |tokenizer| tokenizer.vocab_size());
        let weights = Weights::load(dir, &config)?;
        let mut network = Network::new(&config, &weights, options, tokens)?;
        let Network { origin, shape, decoder, .. } = &mut network;
        let table = [config.vocab_size, config.d_model];
        let found = Found { checkpoint: dir, weights: &weights, norm: &decoder.head.norm, options };
        origin.find(found, shape, || {
            let own = weights.optional_tensor(HEAD, &table)?;
            own.map_or_else(|| weights.tensor(SHARED, &table), Ok)
        })?;
        Ok(network)
    }

    /// Packs weights. Outputs have at most the first `tokens` of the vocabulary.
    pub(super) fn new(
        config: &T5Config,
        weights: &Weights,
        options: &LoadOptions,
        tokens: usize,
    ) -> Result<Self, Error> {
        let d_model = config.d_model;
        let table = [config.vocab_size, d_model];
        let shared = weights.tensor(SHARED, &table)?;
        let matrix = "decoder.block.0.layer.0.SelfAttention.q.weight";
        let origin = Origin::new(weights, options, &config.shape(), matrix)?;
        let packing = origin.packing;
        let build = Builder { config, weights, packing, cache_type: CacheType::F32 };
        // The encoder's are gone when it has read a source.
        let build_decoder = Builder { cache_type: origin.cache_type, ..build };
        // The file decides whether the head is separate, never `tie_word_embeddings`, which transformers 5
        // always sets.
        let table_of = |name| {
            let own = weights.optional_tensor(name, &table);
            own.map(|own| own.unwrap_or_else(|| shared.clone()))
        };
        let head = table_of(HEAD)?;
        let head = Table::new(head.first_rows(tokens), packing);
        let mut shape = BackboneShape { vocab_size: head.rows(), ..config.shape() };
        let mut norm = build.norm("decoder.final_layer_norm")?;
        norm.scale = config.head_scale() as f32;
        let encoder = Encoder {
            embed_tokens: table_of(ENCODER_EMBEDDING)?,
            blocks: (0..config.num_layers).map(|i| build.encoder_block(i)).collect::<Result<_, _>>()?,
            relative_attention_bias: build.relative_attention_bias("encoder")?,
            final_layer_norm: build.norm("encoder.final_layer_norm")?,
        };
        let decoder = Decoder {
            embed_tokens: table_of(DECODER_EMBEDDING)?,
            blocks: (0..config.decoder_layers())
                .map(|i| build_decoder.decoder_block(i))
                .collect::<Result<_, _>>()?,
            relative_attention_bias: build.relative_attention_bias("decoder")?,
            head: Head::new(norm, head, packing),
        };
        // Weights as they are packed, which may be narrower than 4 bytes.
        let block = &decoder.blocks[0];
        shape.bytes.layer = block.bytes() as f64;
        shape.bytes.skipped_layer = block.self_attention.kv.bytes() as f64;
        shape.bytes.head = decoder.head.bytes() as f64;
        Ok(Network { config: config.clone(), shape, encoder, decoder, origin })
    }
}

/// Finds the tensors of a network and packs them.
struct Builder<'a> {
    config: &'a T5Config,
    weights: &'a Weights,
    packing: Packing,
    /// How the layers that it builds keep keys and values.
    cache_type: CacheType,
}

impl Builder<'_> {
    fn encoder_block(&self, block: i64) -> Result<EncoderBlock, Error> {
        let path = format!("encoder.block.{block}.layer");
        Ok(EncoderBlock {
            self_attention: self.self_attention(&path)?,
            feed_forward: self.feed_forward(&format!("{path}.1"))?,
        })
    }

    fn decoder_block(&self, block: i64) -> Result<DecoderBlock, Error> {
        let path = format!("decoder.block.{block}.layer");
        let cross = format!("{path}.1.EncDecAttention");
        Ok(DecoderBlock {
            self_attention: self.self_attention(&path)?,
            cross_attention: EncDecAttention {
                heads: self.heads(),
                norm: self.norm(&format!("{path}.1.layer_norm"))?,
                q: self.linear(&self.projection(&cross, "q")?),
                kv: self.projections(&cross, &["k", "v"])?,
                o: self.linear(&self.output(&cross)?),
            },
            feed_forward: self.feed_forward(&format!("{path}.2"))?,
        })
    }

    fn self_attention(&self, path: &str) -> Result<SelfAttention, Error> {
        let attention = format!("{path}.0.SelfAttention");
        let qkv = self.projections(&attention, &["q", "k", "v"])?;
        Ok(SelfAttention {
            heads: self.heads(),
            norm: self.norm(&format!("{path}.0.layer_norm"))?,
            kv: qkv.without_first(),
            qkv,
            o: self.linear(&self.output(&attention)?),
        })
    }

    fn feed_forward(&self, path: &str) -> Result<DenseReluDense, Error> {
        let (d_ff, d_model, activation) =
            (self.config.d_ff, self.config.d_model, self.config.feed_forward_proj);
        let input = |name: &str| {
            self.weights.tensor(&format!("{path}.DenseReluDense.{name}.weight"), &[d_ff, d_model])
        };
        let wi = if activation.is_gated() {
            Linear::gated(&input("wi_0")?, &input("wi_1")?, self.packing)
        } else {
            self.linear(&input("wi")?)
        };
        let wo = self.weights.tensor(&format!("{path}.DenseReluDense.wo.weight"), &[d_model, d_ff])?;
        let norm = self.norm(&format!("{path}.layer_norm"))?;
        Ok(DenseReluDense { norm, wi, wo: self.linear(&wo), activation })
    }

    fn heads(&self) -> Heads {
        Heads {
            count: self.config.num_heads as usize,
            group: 1,
            d_kv: self.config.d_kv as usize,
            scale: 1.0,
            cache_type: self.cache_type,
        }
    }

    fn projection(&self, path: &str, name: &str) -> Result<Stored, Error> {
        self.weights.tensor(&format!("{path}.{name}.weight"), &[self.config.inner(), self.config.d_model])
    }

    /// Several projections of the same states in one product.
    fn projections(&self, path: &str, names: &[&str]) -> Result<Linear, Error> {
        let matrices: Result<Vec<_>, _> = names.iter().map(|name| self.projection(path, name)).collect();
        Ok(Linear::parallel(&matrices?, self.packing))
    }

    fn output(&self, path: &str) -> Result<Stored, Error> {
        self.weights.tensor(&format!("{path}.o.weight"), &[self.config.d_model, self.config.inner()])
    }

    fn linear(&self, matrix: &Stored) -> Linear {
        Linear::new(matrix, self.packing)
    }

    fn norm(&self, path: &str) -> Result<RmsNorm, Error> {
        let weight = self.weights.tensor(&format!("{path}.weight"), &[self.config.d_model])?.to_vec();
        Ok(RmsNorm { weight, epsilon: self.config.layer_norm_epsilon as f32, scale: 1.0 })
    }

    /// Only the first block of a stack has the table; all blocks use it.
    fn relative_attention_bias(&self, stack: &str) -> Result<Stored, Error> {
        let name = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        self.weights.tensor(&name, &[self.config.relative_attention_num_buckets, self.config.num_heads])
    }
}
