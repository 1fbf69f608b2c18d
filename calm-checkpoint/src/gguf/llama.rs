//! The configuration of a Llama in a GGUF file, as llama.cpp's converter writes it.

use calm_gguf::{Gguf, TensorType};

use super::names::ROPE_FREQS;
use super::{Architecture, GgufTokens, Keys, OUTPUT};
use crate::{Error, LlamaConfig, RopeScaling};

/// What the published networks with stretched wavelengths have (Llama 3.1 to 3.3); files have its result
/// alone.
const LOW_FREQ_FACTOR: f64 = 1.0;
const HIGH_FREQ_FACTOR: f64 = 4.0;
const ORIGINAL_POSITIONS: i64 = 8192;

/// By how much a stored factor may differ from the one that is computed, as a share.
const TOLERANCE: f64 = 1e-4;

impl LlamaConfig {
    /// Reads the configuration of the Llama in a GGUF file.
    ///
    /// # Errors
    /// The file has another network, lacks a key, or has a value that no Llama has or that asks for what is
    /// not implemented, such as experts.
    pub fn of_gguf(gguf: &Gguf) -> Result<Self, Error> {
        let keys = Keys::of(gguf, Architecture::Llama)?;
        refuse_others(&keys)?;
        let tokens = GgufTokens::read(gguf)?;
        let hidden_size: i64 = keys.require("embedding_length")?;
        let num_attention_heads: i64 = keys.require("attention.head_count")?;
        let head_dim = match keys.get("attention.key_length")? {
            Some(width) => width,
            None if num_attention_heads > 0 => hidden_size / num_attention_heads,
            None => 0,
        };
        for name in ["attention.value_length", "rope.dimension_count"] {
            if let Some(found) = keys.get::<i64>(name)?.filter(|found| *found != head_dim) {
                return Err(keys.invalid(name, format!("it is {found}, but keys are {head_dim} wide")));
            }
        }
        let ends = (tokens.ends.len() > 1).then_some(tokens.ends);
        let mut config = LlamaConfig {
            hidden_size,
            intermediate_size: keys.require("feed_forward_length")?,
            num_hidden_layers: keys.require("block_count")?,
            num_attention_heads,
            num_key_value_heads: keys.get("attention.head_count_kv")?.unwrap_or(num_attention_heads),
            head_dim,
            vocab_size: keys.vocab_size()?,
            max_position_embeddings: keys.require("context_length")?,
            rms_norm_eps: super::decimal(keys.require("attention.layer_norm_rms_epsilon")?),
            rope_theta: super::decimal(keys.get("rope.freq_base")?.unwrap_or(10_000.0)),
            rope_scaling: scaling(&keys)?,
            tie_word_embeddings: gguf.tensor(OUTPUT).is_none(),
            bos_token_id: tokens.begin,
            eos_token_id: tokens.end.into_iter().collect(),
            generation_eos_token_id: ends,
        };
        config.check().map_err(|reason| keys.config_error(reason))?;
        if let Some(factors) = factors(gguf)? {
            config.rope_scaling = stretched(&config, &factors).ok_or_else(|| {
                let reason = "the wavelengths of its positions are stretched in another way than Llama 3's";
                keys.config_error(format!("{ROPE_FREQS}: {reason}, which is not implemented"))
            })?;
        }
        Ok(config)
    }
}

/// Refuses keys that change what is computed in a way that is not implemented.
fn refuse_others(keys: &Keys<'_>) -> Result<(), Error> {
    if let Some(experts) = keys.get::<u64>("expert_count")?.filter(|experts| *experts > 0) {
        return Err(keys.invalid("expert_count", format!("{experts} experts, which are not implemented")));
    }
    for (name, what) in [
        ("attention.sliding_window", "attention to a window"),
        ("attention.scale", "another scale of scores"),
        ("attention.clamp_kqv", "numbers that are cut off"),
        ("logit_scale", "a scale of logits"),
        ("embedding_scale", "a scale of embeddings"),
        ("residual_scale", "a scale of residuals"),
    ] {
        if keys.gguf.metadata(&keys.key(name)).is_some() {
            return Err(keys.invalid(name, format!("{what}, which is not implemented")));
        }
    }
    match keys.get::<bool>("attention.causal")? {
        Some(false) => Err(keys
            .invalid("attention.causal", "attention to later tokens, which is not implemented".to_owned())),
        _ => Ok(()),
    }
}

/// How keys say that positions were stretched.
fn scaling(keys: &Keys<'_>) -> Result<RopeScaling, Error> {
    const TYPE: &str = "rope.scaling.type";
    let linear: Option<f32> = keys.get("rope.scale_linear")?;
    let factor = keys.get::<f32>("rope.scaling.factor")?.or(linear).map(super::decimal);
    match (keys.get::<&str>(TYPE)?, factor) {
        (None | Some("none"), None) | (Some("none"), _) => Ok(RopeScaling::Default),
        (None | Some("linear"), Some(factor)) => Ok(RopeScaling::Linear { factor }),
        (Some("linear"), None) => {
            Err(keys.invalid(TYPE, "linear, but there is no rope.scaling.factor".to_owned()))
        }
        (Some(other), _) => {
            Err(keys.invalid(TYPE, format!("`{other}`, which is not implemented: there are none and linear")))
        }
    }
}

/// By how much each wavelength is stretched, if a tensor says it.
fn factors(gguf: &Gguf) -> Result<Option<Vec<f32>>, Error> {
    let Some(tensor) = gguf.tensor(ROPE_FREQS) else { return Ok(None) };
    let kind: TensorType = gguf.tensor_type(tensor)?;
    let mut factors = vec![0.0; tensor.shape.iter().product()];
    kind.dequantise(gguf.bytes(tensor), &mut factors);
    Ok(Some(factors))
}

/// The scaling of Llama 3 that stretches by these factors.
fn stretched(config: &LlamaConfig, factors: &[f32]) -> Option<RopeScaling> {
    if factors.len() as i64 != config.head_dim / 2 {
        return None;
    }
    let largest = factors.iter().copied().fold(f32::NAN, f32::max);
    let scaling = RopeScaling::Llama3 {
        factor: super::decimal(largest),
        low_freq_factor: LOW_FREQ_FACTOR,
        high_freq_factor: HIGH_FREQ_FACTOR,
        original_max_position_embeddings: ORIGINAL_POSITIONS,
    };
    let plain = LlamaConfig { rope_scaling: RopeScaling::Default, ..config.clone() }.inverse_frequencies();
    let scaled = LlamaConfig { rope_scaling: scaling.clone(), ..config.clone() }.inverse_frequencies();
    let expected = plain.iter().zip(&scaled).map(|(plain, scaled)| plain / scaled);
    let is_it = |(expected, found): (f64, &f32)| (expected - f64::from(*found)).abs() <= TOLERANCE * expected;
    expected.zip(factors).all(is_it).then_some(scaling)
}
