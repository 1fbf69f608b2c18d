//! What transformers makes of configurations and tokenizers: `tests/golden/generate.py`.

use std::path::Path;

use calm_checkpoint::T5Config;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

#[derive(Deserialize)]
pub(crate) struct Golden {
    pub(crate) texts: Vec<String>,
    pub(crate) tokenizers: Vec<TokenizerCase>,
    pub(crate) configs: Vec<ConfigCase>,
    pub(crate) generation: Vec<GenerationCase>,
}

#[derive(Deserialize)]
pub(crate) struct TokenizerCase {
    pub(crate) name: String,
    pub(crate) file: Value,
    /// Tokens of each text.
    pub(crate) ids: Vec<Vec<u32>>,
    /// Texts of these tokens with two of padding behind them.
    pub(crate) decoded: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct ConfigCase {
    pub(crate) written: Value,
    pub(crate) read: Value,
    pub(crate) scaled: bool,
}

#[derive(Deserialize)]
pub(crate) struct GenerationCase {
    pub(crate) written: Value,
    pub(crate) start: u32,
    pub(crate) ends: Vec<u32>,
}

pub(crate) fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/golden.json");
    calm_files::read_json(&path).unwrap()
}

/// The file of a tokenizer: `<pad>`, `</s>`, `<unk>` and a few letters.
pub(crate) fn tokenizer(name: &str) -> Value {
    golden().tokenizers.into_iter().find(|case| case.name == name).unwrap().file
}

/// A folder with the given files.
pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// What `config.json` and `generation_config.json` say.
pub(crate) fn load(config: &str, generation: Option<&str>) -> Result<T5Config, String> {
    let mut files = vec![("config.json", config)];
    files.extend(generation.map(|text| ("generation_config.json", text)));
    let folder = folder(&files);
    let loaded = T5Config::load(&folder.path().join("config.json"));
    loaded.map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "DIR"))
}
