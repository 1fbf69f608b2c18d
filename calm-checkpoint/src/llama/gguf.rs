//! The configuration of a Llama that a GGUF file describes (`llama.*` keys of docs/gguf.md in ggml).

use calm_gguf::Gguf;

use super::{LlamaConfig, RopeScaling};
use crate::Error;
use crate::gguf::GgufTokens;

/// The configuration that the metadata describe.
pub(super) fn config(gguf: &Gguf) -> Result<LlamaConfig, Error> {
    let size = |key: &str| -> Result<Option<i64>, Error> { Ok(gguf.get::<i64>(&format!("llama.{key}"))?) };
    let needed = |key: &str| -> Result<i64, Error> { Ok(gguf.require::<i64>(&format!("llama.{key}"))?) };
    let hidden_size = needed("embedding_length")?;
    let num_attention_heads = needed("attention.head_count")?;
    let head_dim = match size("attention.key_length")? {
        Some(head_dim) => head_dim,
        None => hidden_size / num_attention_heads.max(1),
    };
    let refuse = |key: &str, reason: String| Err(Error::from(gguf.invalid(key, reason)));
    for key in ["attention.value_length", "rope.dimension_count"] {
        if let Some(found) = size(key)?.filter(|found| *found != head_dim) {
            return refuse(&format!("llama.{key}"), format!("is {found}, but heads are {head_dim} wide"));
        }
    }
    if let Some(experts) = size("expert_count")?.filter(|experts| *experts > 0) {
        return refuse(
            "llama.expert_count",
            format!("is {experts}, but only dense networks are implemented"),
        );
    }
    let tokens = GgufTokens::read(gguf)?;
    let config = LlamaConfig {
        hidden_size,
        intermediate_size: needed("feed_forward_length")?,
        num_hidden_layers: needed("block_count")?,
        num_attention_heads,
        num_key_value_heads: size("attention.head_count_kv")?.unwrap_or(num_attention_heads),
        head_dim,
        vocab_size: match size("vocab_size")? {
            Some(size) => size,
            None => gguf.require::<calm_gguf::Array<'_>>("tokenizer.ggml.tokens")?.len() as i64,
        },
        max_position_embeddings: needed("context_length")?,
        rms_norm_eps: gguf.require::<f32>("llama.attention.layer_norm_rms_epsilon")?.into(),
        rope_theta: gguf.get::<f32>("llama.rope.freq_base")?.map_or(10_000.0, f64::from),
        rope_scaling: scaling(gguf)?,
        tie_word_embeddings: gguf.tensor("output.weight").is_none(),
        bos_token_id: tokens.begin,
        eos_token_id: tokens.ends,
        generation_eos_token_id: None,
    };
    config.check().map_err(|reason| Error::Config { path: gguf.path().to_owned(), reason })?;
    Ok(config)
}

fn scaling(gguf: &Gguf) -> Result<RopeScaling, Error> {
    if gguf.tensor("rope_freqs.weight").is_some() {
        return Err(gguf
            .invalid(
                "llama.rope.freq_base",
                "the tensor rope_freqs.weight, which scales it, is not implemented",
            )
            .into());
    }
    let factor = gguf.get::<f32>("llama.rope.scaling.factor")?.map(f64::from);
    match gguf.get::<&str>("llama.rope.scaling.type")? {
        None | Some("none") => Ok(RopeScaling::Default),
        Some("linear") => Ok(RopeScaling::Linear { factor: factor.unwrap_or(1.0) }),
        Some(other) => Err(gguf
            .invalid("llama.rope.scaling.type", format!("is {other}, but there are none and linear"))
            .into()),
    }
}
