//! `config.json` of a Llama as transformers 4 and 5 write it, with what they put in the place of keys that
//! are left out (`LlamaConfig` of transformers 5.24).

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{LLAMA_MODEL_TYPES, LlamaConfig, RopeScaling};
use crate::Error;
use crate::config_keys::{TokenKeys, read_config, token};

/// The base of the wavelengths where nothing names it.
const DEFAULT_THETA: f64 = 10_000.0;

/// The keys of `config.json` that decide what is computed. A key may be missing or null.
#[derive(Deserialize)]
struct ConfigFile {
    hidden_size: Option<i64>,
    intermediate_size: Option<i64>,
    num_hidden_layers: Option<i64>,
    num_attention_heads: Option<i64>,
    num_key_value_heads: Option<i64>,
    head_dim: Option<i64>,
    vocab_size: Option<i64>,
    max_position_embeddings: Option<i64>,
    rms_norm_eps: Option<f64>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    original_max_position_embeddings: Option<i64>,
    /// As transformers 4 writes it.
    rope_scaling: Option<RopeKeys>,
    /// As transformers 5 writes it.
    rope_parameters: Option<RopeKeys>,
    /// All keys, among them those that ask for what is not implemented.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// What either version writes about the rotary position embedding.
#[derive(Default, Deserialize)]
struct RopeKeys {
    rope_type: Option<String>,
    /// What `rope_type` was called at first.
    #[serde(rename = "type")]
    old_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<i64>,
    partial_rotary_factor: Option<f64>,
}

/// The configuration that transformers makes of `config.json` at `path`, and of `generation_config.json`
/// beside it if there is one.
pub(super) fn read(path: &Path) -> Result<LlamaConfig, Error> {
    let apply_generation = |config: &mut LlamaConfig, mut tokens: TokenKeys| {
        config.generation_eos_token_id = tokens.generation_ends(config.vocab_size)?;
        Ok(())
    };
    read_config(path, ConfigFile::config, apply_generation, LlamaConfig::check)
}

/// Writes `config.json` as transformers 5 does.
pub(super) fn write(config: &LlamaConfig, dir: &Path) -> Result<(), Error> {
    let mut rope = match config.rope_scaling {
        RopeScaling::Default => json!({ "rope_type": "default" }),
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings,
        }),
    };
    rope["rope_theta"] = config.rope_theta.into();
    let eos = match config.eos_token_id[..] {
        [token] => json!(token),
        _ => json!(config.eos_token_id),
    };
    let file = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": LLAMA_MODEL_TYPES[0],
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": rope,
        "tie_word_embeddings": config.tie_word_embeddings,
        "hidden_act": "silu",
        "bos_token_id": config.bos_token_id,
        "eos_token_id": eos,
    });
    Ok(calm_files::write_json(&dir.join("config.json"), &file)?)
}

impl ConfigFile {
    fn config(self, mut tokens: TokenKeys) -> Result<LlamaConfig, String> {
        check_others(&self.others)?;
        let hidden_size = self.hidden_size.unwrap_or(4096);
        let num_attention_heads = self.num_attention_heads.unwrap_or(32);
        let vocab_size = self.vocab_size.unwrap_or(32_000);
        let max_position_embeddings = self.max_position_embeddings.unwrap_or(2048);
        let head_dim = match self.head_dim {
            Some(head_dim) => head_dim,
            // Left to the check of the sizes.
            None if num_attention_heads < 1 || hidden_size < 1 => 2,
            None if hidden_size % num_attention_heads == 0 => hidden_size / num_attention_heads,
            None => {
                return Err(format!(
                    "hidden_size is {hidden_size}, but must be a multiple of num_attention_heads, which is \
                     {num_attention_heads}, where there is no head_dim"
                ));
            }
        };
        // transformers goes by the older key where there are both.
        let mut rope = self.rope_scaling.or(self.rope_parameters).unwrap_or_default();
        let original = self.original_max_position_embeddings.or(rope.original_max_position_embeddings);
        rope.original_max_position_embeddings = original.or(Some(max_position_embeddings));
        let rope_theta = rope.rope_theta.or(self.rope_theta).unwrap_or(DEFAULT_THETA);
        let bos = |token_id: i64| token("bos_token_id", token_id, vocab_size);
        Ok(LlamaConfig {
            hidden_size,
            intermediate_size: self.intermediate_size.unwrap_or(11_008),
            num_hidden_layers: self.num_hidden_layers.unwrap_or(32),
            num_attention_heads,
            num_key_value_heads: self.num_key_value_heads.unwrap_or(num_attention_heads),
            head_dim,
            vocab_size,
            max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            rope_theta,
            rope_scaling: rope.scaling()?,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(false),
            bos_token_id: tokens.bos_token_id.unwrap_or(Some(1)).map(bos).transpose()?,
            eos_token_id: tokens.ends(2, vocab_size)?,
            generation_eos_token_id: None,
        })
    }
}

impl RopeKeys {
    fn scaling(&self) -> Result<RopeScaling, String> {
        if self.partial_rotary_factor.is_some_and(|factor| factor != 1.0) {
            return Err("partial_rotary_factor is not 1, but only whole heads can be turned".to_owned());
        }
        let name = self.rope_type.as_deref().or(self.old_type.as_deref()).unwrap_or("default");
        let needed = |key: &str, value: Option<f64>| {
            value.ok_or_else(|| format!("the rope scaling `{name}` has no {key}"))
        };
        match name {
            "default" => Ok(RopeScaling::Default),
            "linear" => Ok(RopeScaling::Linear { factor: needed("factor", self.factor)? }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: needed("factor", self.factor)?,
                low_freq_factor: needed("low_freq_factor", self.low_freq_factor)?,
                high_freq_factor: needed("high_freq_factor", self.high_freq_factor)?,
                original_max_position_embeddings: self
                    .original_max_position_embeddings
                    .ok_or("the rope scaling has no original_max_position_embeddings")?,
            }),
            _ => Err(format!(
                "the rope scaling is `{name}`, which changes what is computed and is not implemented: there are \
                 default, linear, llama3"
            )),
        }
    }
}

/// Refuses keys that change what is computed in a way that is not implemented. `pretraining_tp` changes the
/// order of sums alone, and transformers 5 has no use for it.
fn check_others(others: &Map<String, Value>) -> Result<(), String> {
    let is_set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
    let refused = [
        ("attention_bias", "projections with a bias"),
        ("mlp_bias", "projections with a bias"),
        ("sliding_window", "attention to a window"),
        ("use_sliding_window", "attention to a window"),
        ("rope_interleaved", "a rotary position embedding of neighbouring pairs"),
        ("partial_rotary_factor", "a rotary position embedding of parts of heads"),
        ("quantization_config", "quantised weights in safetensors"),
    ];
    for (key, what) in refused {
        let value = others.get(key).filter(|value| is_set(value));
        // The whole head is what is implemented.
        if let Some(value) =
            value.filter(|value| value.as_f64() != Some(1.0) || key != "partial_rotary_factor")
        {
            return Err(format!("{key} is {value}, but {what} is not implemented"));
        }
    }
    if let Some(act) = others.get("hidden_act").filter(|act| is_set(act))
        && !["silu", "swish"].iter().any(|name| act == name)
    {
        return Err(format!("hidden_act is {act}, but a Llama has silu"));
    }
    let layer_types = others.get("layer_types").and_then(Value::as_array);
    match layer_types.into_iter().flatten().find(|kind| *kind != "full_attention") {
        Some(kind) => Err(format!("layer_types has {kind}, but only full_attention is implemented")),
        None => Ok(()),
    }
}
