//! `config.json` and `generation_config.json` as they are written, with what transformers puts in the place
//! of keys that are left out.

use std::path::Path;

use serde::Deserialize;

use super::{FeedForward, T5Config};
use crate::Error;
use crate::config_keys::{TokenKeys, read_config, token};

/// The keys of `config.json` that decide what is computed. A key may be missing or null.
#[derive(Deserialize)]
struct ConfigFile {
    model_type: Option<String>,
    d_model: Option<i64>,
    d_kv: Option<i64>,
    d_ff: Option<i64>,
    num_layers: Option<i64>,
    num_decoder_layers: Option<i64>,
    num_heads: Option<i64>,
    vocab_size: Option<i64>,
    relative_attention_num_buckets: Option<i64>,
    relative_attention_max_distance: Option<i64>,
    layer_norm_epsilon: Option<f64>,
    feed_forward_proj: Option<FeedForward>,
    dense_act_fn: Option<String>,
    is_gated_act: Option<bool>,
    tie_word_embeddings: Option<bool>,
    scale_decoder_outputs: Option<bool>,
}

/// What a model type has where a key is left out (`T5Config` and `MT5Config` of transformers 5.24).
struct Defaults {
    vocab_size: i64,
    d_ff: i64,
    num_layers: i64,
    num_heads: i64,
    feed_forward_proj: FeedForward,
}

const T5: Defaults = Defaults {
    vocab_size: 32_128,
    d_ff: 2048,
    num_layers: 6,
    num_heads: 8,
    feed_forward_proj: FeedForward::Relu,
};
const MT5: Defaults = Defaults {
    vocab_size: 250_112,
    d_ff: 1024,
    num_layers: 8,
    num_heads: 6,
    feed_forward_proj: FeedForward::GatedGelu,
};

/// The configuration that transformers makes of `config.json` at `path`, and of `generation_config.json`
/// beside it if there is one.
pub(super) fn read(path: &Path) -> Result<T5Config, Error> {
    read_config(path, ConfigFile::config, apply_generation, T5Config::check)
}

impl ConfigFile {
    fn config(self, mut tokens: TokenKeys) -> Result<T5Config, String> {
        let is_mt5 = self.model_type.as_deref() == Some("mt5");
        let defaults = if is_mt5 { MT5 } else { T5 };
        let feed_forward_proj = self.feed_forward_proj.unwrap_or(defaults.feed_forward_proj);
        check_activation(feed_forward_proj, self.dense_act_fn.as_deref(), self.is_gated_act)?;
        let vocab_size = self.vocab_size.unwrap_or(defaults.vocab_size);
        let id = |key, value: Option<i64>| value.map(|value| token(key, value, vocab_size)).transpose();
        let eos_token_id = tokens.ends(1, vocab_size)?;
        let TokenKeys { pad_token_id, bos_token_id, decoder_start_token_id, .. } = tokens;
        // Checkpoints on the Hub have -1 where there is none.
        let pad_token_id = match pad_token_id.unwrap_or(0) {
            -1 => *eos_token_id.first().ok_or("pad_token_id is -1, and eos_token_id is null")?,
            pad => token("pad_token_id", pad, vocab_size)?,
        };
        let start = id("decoder_start_token_id", decoder_start_token_id)?;
        Ok(T5Config {
            d_model: self.d_model.unwrap_or(512),
            d_kv: self.d_kv.unwrap_or(64),
            d_ff: self.d_ff.unwrap_or(defaults.d_ff),
            num_layers: self.num_layers.unwrap_or(defaults.num_layers),
            num_decoder_layers: self.num_decoder_layers,
            num_heads: self.num_heads.unwrap_or(defaults.num_heads),
            vocab_size,
            relative_attention_num_buckets: self.relative_attention_num_buckets.unwrap_or(32),
            relative_attention_max_distance: self.relative_attention_max_distance.unwrap_or(128),
            layer_norm_epsilon: self.layer_norm_epsilon.unwrap_or(1e-6),
            feed_forward_proj,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(true),
            // transformers 5 writes `tie_word_embeddings: true` for mT5 too, whose outputs it never scales.
            scale_decoder_outputs: self.scale_decoder_outputs.or(is_mt5.then_some(false)),
            pad_token_id,
            eos_token_id,
            decoder_start_token_id: start.or(id("bos_token_id", bos_token_id.flatten())?),
            generation_eos_token_id: None,
        })
    }
}

/// Puts what `generation_config.json` says in the place of what `config.json` says.
fn apply_generation(config: &mut T5Config, mut tokens: TokenKeys) -> Result<(), String> {
    let id = |key, value: Option<i64>| value.map(|value| token(key, value, config.vocab_size)).transpose();
    let start = id("decoder_start_token_id", tokens.decoder_start_token_id)?;
    let start = start.or(id("bos_token_id", tokens.bos_token_id.flatten())?);
    config.decoder_start_token_id = start.or(config.decoder_start_token_id);
    config.generation_eos_token_id = tokens.generation_ends(config.vocab_size)?;
    Ok(())
}

/// Refuses keys that say again, and otherwise, what `feed_forward_proj` says: transformers follows them.
fn check_activation(projection: FeedForward, dense: Option<&str>, gated: Option<bool>) -> Result<(), String> {
    let (name, activation) = match projection {
        FeedForward::Relu => ("relu", "relu"),
        FeedForward::GatedGelu => ("gated-gelu", "gelu_new"),
        FeedForward::GatedSilu => ("gated-silu", "silu"),
    };
    if let Some(dense) = dense.filter(|&dense| dense != activation) {
        return Err(format!(
            "dense_act_fn is {dense}, but feed_forward_proj is {name}, which has {activation}"
        ));
    }
    if let Some(gated) = gated.filter(|&gated| gated != projection.is_gated()) {
        return Err(format!("is_gated_act is {gated}, but feed_forward_proj is {name}"));
    }
    Ok(())
}
