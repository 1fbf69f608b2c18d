//! What is asked of a network that `config.json` describes: its tensors, its dimensions and its tokenizer.

use std::path::Path;

use calm_core::{BackboneShape, Token};
use calm_gguf::Gguf;

use crate::files::is_gguf;
use crate::gguf::gguf_config;
use crate::model_type::{Naming, model_type};
use crate::tensor_names::{CLASSIFIER_BIAS, CLASSIFIER_WEIGHT};
use crate::{Error, HeadParts, LLAMA_MODEL_TYPES, LlamaConfig, T5_MODEL_TYPES, T5Config, Tokenizer};

/// A network as `config.json` describes it.
pub trait NetworkConfig {
    /// How files call this kind of network and its tensors.
    fn naming(&self) -> &'static Naming;

    /// Lists every tensor of the network, by its name in the checkpoint.
    fn parameters(&self) -> Vec<Parameter>;

    /// Lists the tensors that a checkpoint may have beyond those it needs. Those of the exit classifier are
    /// not among them.
    fn optional_tensors(&self) -> Vec<(&'static str, Vec<i64>)>;

    /// What the decoding loop and the cost model know of the network, with weights of 4 bytes.
    fn shape(&self) -> BackboneShape;

    /// The tensors that the output head is made of.
    fn head_parts(&self) -> HeadParts;

    /// The tokens that end an output, at least one.
    fn end_tokens(&self) -> &[Token];

    /// Positions for a prompt and its output together, where there is a bound.
    fn context(&self) -> Option<usize> {
        None
    }

    /// Reads a `tokenizer.json` for this network, so that texts begin and end as the network expects it.
    ///
    /// # Errors
    /// Fails if the file is missing or is not a tokenizer, or contradicts the configuration.
    fn load_tokenizer(&self, path: &Path) -> Result<Tokenizer, Error>;

    /// Writes `config.json` into a checkpoint directory, with the keys by which transformers knows it.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    fn save(&self, dir: &Path) -> Result<(), Error>;
}

/// Reads the configuration of a checkpoint directory, whatever network it is.
///
/// # Errors
/// Fails if there is no such network, or as [`T5Config::load`] and [`LlamaConfig::load`] do.
pub fn load_config(dir: &Path) -> Result<Box<dyn NetworkConfig>, Error> {
    if is_gguf(dir) {
        return gguf_config(&Gguf::open(dir)?);
    }
    let path = dir.join("config.json");
    match model_type(dir)?.as_str() {
        found if T5_MODEL_TYPES.contains(&found) => Ok(Box::new(T5Config::load(&path)?)),
        found if LLAMA_MODEL_TYPES.contains(&found) => Ok(Box::new(LlamaConfig::load(&path)?)),
        found => {
            let known = [T5_MODEL_TYPES, LLAMA_MODEL_TYPES].concat();
            Err(Error::UnknownModelType { path, found: found.to_owned(), known })
        }
    }
}

/// A tensor of an untrained network.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// The tensor's name in the checkpoint.
    pub name: String,
    /// The tensor's shape, as `config.json` implies it.
    pub shape: Vec<i64>,
    /// Standard deviation of the tensor's normal distribution.
    ///
    /// It is `None` for the norms' weights, which start at 1.
    pub deviation: Option<f64>,
}

/// A tensor that a checkpoint may have.
pub(crate) struct Expected {
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
    pub(crate) is_needed: bool,
}

/// Lists the tensors that a checkpoint of a network may have, the first of which that is missing or wrong is
/// worth an error.
pub(crate) fn expected(config: &dyn NetworkConfig) -> Vec<Expected> {
    let optional = config.optional_tensors();
    let is_optional = |name: &str| optional.iter().any(|(optional, _)| *optional == name);
    let parameters = config.parameters().into_iter();
    let needed = parameters.filter(|parameter| !is_optional(&parameter.name));
    let needed = needed.map(|Parameter { name, shape, .. }| Expected { name, shape, is_needed: true });
    let d_model = config.shape().d_model as i64;
    let classifier = [(CLASSIFIER_WEIGHT, vec![d_model]), (CLASSIFIER_BIAS, vec![1])];
    let optional = optional.iter().cloned().chain(classifier);
    let optional = optional.map(|(name, shape)| Expected { name: name.to_owned(), shape, is_needed: false });
    needed.chain(optional).collect()
}
