//! The configuration of a T5 in a GGUF file, as llama.cpp's converter writes it (`T5Model` of its
//! conversion/t5.py).

use calm_core::Token;
use calm_gguf::Gguf;

use super::names::is_gated;
use super::{Architecture, GgufTokens, Keys, OUTPUT, TOKEN_EMBD};
use crate::{Error, FeedForward, T5Config};

/// The distance from which on all positions share a bucket, which files do not say.
const MAX_DISTANCE: i64 = 128;

impl T5Config {
    /// Reads the configuration of the T5 in a GGUF file.
    ///
    /// Tensors say what keys do not: a feed-forward network with a gate is that of v1.1 and FLAN, with gelu;
    /// a head of its own, whose numbers are not those of the embedding, means that states are not scaled.
    ///
    /// # Errors
    /// The file has another network, lacks a key, or has a value that no T5 has.
    pub fn of_gguf(gguf: &Gguf) -> Result<Self, Error> {
        let keys = Keys::of(gguf, Architecture::T5)?;
        if gguf.tensor("enc.blk.1.attn_rel_b.weight").is_some() {
            let reason = "every layer has a position bias: it is a umT5, which is not implemented";
            return Err(keys.config_error(reason.to_owned()));
        }
        let tokens = GgufTokens::read(gguf)?;
        let head_width: i64 = keys.require("attention.key_length")?;
        if keys.get("attention.value_length")?.is_some_and(|width: i64| width != head_width) {
            return Err(keys.invalid("attention.value_length", format!("keys are {head_width} wide")));
        }
        let token = |name: &str| -> Result<Option<Token>, Error> { keys.get(name) };
        let config = T5Config {
            d_model: keys.require("embedding_length")?,
            d_kv: head_width,
            d_ff: keys.require("feed_forward_length")?,
            num_layers: keys.require("block_count")?,
            num_decoder_layers: keys.get("decoder_block_count")?,
            num_heads: keys.require("attention.head_count")?,
            vocab_size: keys.vocab_size()?,
            relative_attention_num_buckets: keys.require("attention.relative_buckets_count")?,
            relative_attention_max_distance: MAX_DISTANCE,
            layer_norm_epsilon: epsilon(&keys)?,
            feed_forward_proj: if is_gated(gguf) { FeedForward::GatedGelu } else { FeedForward::Relu },
            tie_word_embeddings: is_tied(gguf),
            scale_decoder_outputs: None,
            pad_token_id: tokens.pad.unwrap_or(0),
            eos_token_id: tokens.end.into_iter().collect(),
            decoder_start_token_id: token("decoder_start_token_id")?,
            generation_eos_token_id: None,
        };
        config.check().map_err(|reason| keys.config_error(reason))?;
        Ok(config)
    }
}

/// What norms add to the variance. Files have it as f32: the shortest decimal number is what was meant.
fn epsilon(keys: &Keys<'_>) -> Result<f64, Error> {
    let epsilon: f32 = match keys.get("attention.layer_norm_rms_epsilon")? {
        Some(epsilon) => epsilon,
        None => keys.require("attention.layer_norm_epsilon")?,
    };
    Ok(super::decimal(epsilon))
}

/// Whether the head is the embedding, or a copy of it.
fn is_tied(gguf: &Gguf) -> bool {
    match (gguf.tensor(OUTPUT), gguf.tensor(TOKEN_EMBD)) {
        (Some(head), Some(embedding)) => {
            head.ggml_type == embedding.ggml_type && gguf.bytes(head) == gguf.bytes(embedding)
        }
        _ => true,
    }
}
