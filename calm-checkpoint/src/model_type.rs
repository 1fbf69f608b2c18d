//! What kind of network a checkpoint is.

use std::path::Path;

use crate::Error;

/// Values of `model_type` in `config.json` that mean the network of T5.
pub const T5_MODEL_TYPES: &[&str] = &["t5", "mt5"];

/// Reads `model_type` of a checkpoint's `config.json`. The first T5 checkpoints have none.
///
/// # Errors
/// Fails if the file is missing or is not JSON.
pub fn model_type(dir: &Path) -> Result<String, Error> {
    #[derive(serde::Deserialize)]
    struct Config {
        model_type: Option<String>,
    }
    let config: Config = calm_files::read_json(&dir.join("config.json"))?;
    Ok(config.model_type.unwrap_or_else(|| "t5".to_owned()))
}

/// Checks that a checkpoint is a T5. Relatives such as umT5 and LongT5 have tensors of the same names and
/// compute something else.
pub(crate) fn check_model_type(dir: &Path) -> Result<(), Error> {
    let found = model_type(dir)?;
    if T5_MODEL_TYPES.contains(&found.as_str()) {
        return Ok(());
    }
    Err(Error::ModelType { path: dir.join("config.json"), found })
}
