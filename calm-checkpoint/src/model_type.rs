//! What kind of network a checkpoint is, and how files of this kind call what they hold.

use std::path::Path;

use calm_gguf::Gguf;

use crate::Error;
use crate::files::is_gguf;

/// How files call a kind of network and its tensors.
pub struct Naming {
    /// What the kind is called in messages.
    pub(crate) network: &'static str,
    /// Values of `model_type` in `config.json` that mean this network.
    pub(crate) model_types: &'static [&'static str],
    /// Tables of the embedding. The first that a checkpoint has stands for those that it has not.
    pub(crate) embeddings: &'static [&'static str],
    /// The name that the network gives a tensor, without what training in a wrapper has put into it.
    pub(crate) canonical: fn(&str) -> String,
    /// Whether a tensor of the published network may be left unused.
    pub(crate) is_leftover: fn(&str) -> bool,
    /// Whether a tensor belongs inside the network, so that outputs without it are another model's.
    pub(crate) is_of_network: fn(&str) -> bool,
}

/// Reads `model_type` of a checkpoint's `config.json`, which the first T5 checkpoints have not, or the
/// architecture of a GGUF file.
///
/// # Errors
/// Fails if the file is missing or is not JSON, or not GGUF.
pub fn model_type(dir: &Path) -> Result<String, Error> {
    if is_gguf(dir) {
        return Ok(Gguf::open(dir)?.require::<&str>("general.architecture")?.to_owned());
    }
    #[derive(serde::Deserialize)]
    struct Config {
        model_type: Option<String>,
    }
    let path = dir.join("config.json");
    if !path.exists() {
        return Err(Error::NoModel { path });
    }
    let config: Config = calm_files::read_json(&path)?;
    Ok(config.model_type.unwrap_or_else(|| "t5".to_owned()))
}

impl Naming {
    /// Checks that a checkpoint is of this kind. Relatives of T5 such as umT5 and LongT5 have tensors of the
    /// same names and compute something else.
    pub(crate) fn check_model_type(&self, dir: &Path) -> Result<(), Error> {
        let found = model_type(dir)?;
        if self.model_types.contains(&found.as_str()) {
            return Ok(());
        }
        let (network, known) = (self.network, self.model_types);
        Err(Error::ModelType { path: dir.join("config.json"), found, network, known })
    }
}
