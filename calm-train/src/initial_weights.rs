//! What a run starts from: random weights, or a published checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use calm_checkpoint::{CLASSIFIER_BIAS, CLASSIFIER_WEIGHT, HEAD, T5Config, Tokenizer, weights_hash};
use calm_model::Weights;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::config::TrainConfig;
use crate::parameters::Parameters;

/// A network before its first step.
pub(crate) struct InitialWeights {
    pub t5_config: T5Config,
    /// The `config.json` of the finished checkpoint. Keys that this project has no use for come from `init`.
    pub published_config: Value,
    /// The `generation_config.json` of the finished checkpoint, likewise.
    pub published_generation_config: Value,
    pub parameters: Parameters,
    /// SHA-256 of the weights of `init`, in hexadecimal; `None` for random weights.
    pub init: Option<String>,
}

impl InitialWeights {
    /// Reads `init` or draws random weights.
    ///
    /// # Errors
    /// Fails if `init` cannot be read, or has fewer embeddings than the tokenizer has tokens.
    pub(crate) fn new(config: &TrainConfig, tokenizer: &Tokenizer, device: Device) -> Result<Self, Error> {
        let mut init = None;
        let (t5_config, published_config, weights) = match (&config.model, &config.init) {
            (_, Some(dir)) => {
                init = Some(weights_hash(dir)?);
                from_checkpoint(dir, tokenizer)?
            }
            (Some(model), None) => {
                let t5_config = model.t5_config(tokenizer.vocab_size(), tokenizer.special_tokens()?);
                let weights = calm_model::init::random_weights(&t5_config, config.seed as i64);
                let base = serde_json::json!({
                    "architectures": ["T5ForConditionalGeneration"],
                    "model_type": "t5",
                    "is_encoder_decoder": true,
                    "is_gated_act": t5_config.feed_forward_proj.is_gated(),
                    "dense_act_fn": "gelu_new",
                });
                (t5_config, base, weights)
            }
            (None, None) => unreachable!("loading a configuration has checked it"),
        };
        let dtype = match config.output_precision {
            crate::Precision::F32 => "float32",
            crate::Precision::Bf16 => "bfloat16",
        };
        let parameters = Parameters::of_network(&t5_config, &weights, device)?;
        let published_config = published(published_config, &t5_config, dtype);
        let published_generation_config = published_generation(config.init.as_deref(), &t5_config)?;
        Ok(InitialWeights { t5_config, published_config, published_generation_config, parameters, init })
    }
}

/// Reads the network's own tensors in f32, without copies, leftovers and exit classifier.
fn from_checkpoint(dir: &Path, tokenizer: &Tokenizer) -> Result<(T5Config, Value, Weights), Error> {
    let path = dir.join("config.json");
    let mut t5_config = T5Config::load(&path)?;
    let base = calm_files::read_json(&path)?;
    // The file decides what the head is, and from here on config.json does too.
    let weights = Weights::load(dir, &t5_config, Device::Cpu)?;
    let tensors: BTreeMap<String, Tensor> = weights
        .iter()
        .filter(|(name, _)| ![CLASSIFIER_WEIGHT, CLASSIFIER_BIAS].contains(name))
        .map(|(name, tensor)| (name.to_owned(), tensor.to_dtype(Kind::Float, false, true)))
        .collect();
    let tokens = tokenizer.vocab_size() as i64;
    if tokens > t5_config.vocab_size {
        let reason = format!("its vocabulary has {} entries, the tokenizer {tokens}", t5_config.vocab_size);
        return Err(Error::Init { dir: dir.to_owned(), reason });
    }
    // The scale of the head's input must not change with the key that transformers 5 always sets.
    t5_config.scale_decoder_outputs = Some(t5_config.head_scale() != 1.0);
    t5_config.tie_word_embeddings = !tensors.contains_key(HEAD);
    t5_config.decoder_start_token_id = Some(t5_config.start_token());
    Ok((t5_config, base, Weights::new(tensors)))
}

/// Returns `config.json` with the keys by which transformers recognises the class.
fn published(mut base: Value, config: &T5Config, dtype: &str) -> Value {
    if let (Some(base), Ok(Value::Object(keys))) = (base.as_object_mut(), serde_json::to_value(config)) {
        base.extend(keys);
        base.insert("dtype".to_owned(), dtype.into());
    }
    base
}

/// Returns `generation_config.json`, which transformers prefers to `config.json`. One that an earlier run
/// left in the output folder must not speak for this model.
fn published_generation(init: Option<&Path>, config: &T5Config) -> Result<Value, Error> {
    let path = init.map(|dir| dir.join("generation_config.json")).filter(|path| path.is_file());
    let base: Option<BTreeMap<String, Value>> = path.map(|path| calm_files::read_json(&path)).transpose()?;
    let mut keys = base.unwrap_or_default();
    keys.insert("decoder_start_token_id".to_owned(), config.start_token().into());
    keys.insert("eos_token_id".to_owned(), config.end_tokens().into());
    keys.insert("pad_token_id".to_owned(), config.pad_token_id.into());
    Ok(keys.into_iter().collect())
}
