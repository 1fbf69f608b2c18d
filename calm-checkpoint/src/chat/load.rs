//! Where a model's template is.

use std::collections::BTreeMap;
use std::path::Path;

use calm_gguf::{Array, Gguf};
use serde::Deserialize;

use super::ChatTemplate;
use crate::Error;
use crate::files::is_gguf;
use crate::gguf::GgufTokens;
use crate::tokenizer::TokenName;

/// The file of a template by itself, before what `tokenizer_config.json` says.
const FILE: &str = "chat_template.jinja";

/// What `tokenizer_config.json` says about templates and the tokens in them.
#[derive(Default, Deserialize)]
struct Config {
    chat_template: Option<Templates>,
    bos_token: Option<TokenName>,
    eos_token: Option<TokenName>,
    unk_token: Option<TokenName>,
    pad_token: Option<TokenName>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a template, or a list of templates with their names")]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

impl ChatTemplate {
    /// Reads the template of a checkpoint directory or a GGUF file, if it has one.
    ///
    /// # Errors
    /// Fails if a file cannot be read, is not what it should be, or if the template is no Jinja template.
    pub fn of_checkpoint(dir: &Path) -> Result<Option<Self>, Error> {
        if is_gguf(dir) {
            return Self::of_gguf(&Gguf::open(dir)?);
        }
        let path = dir.join("tokenizer_config.json");
        let config: Config = if path.is_file() { calm_files::read_json(&path)? } else { Config::default() };
        let file = dir.join(FILE);
        let (path, source) = if file.is_file() {
            let source = calm_files::read_to_string(&file)?;
            (file, source)
        } else {
            match config.chat_template {
                None => return Ok(None),
                Some(Templates::One(source)) => (path, source),
                Some(Templates::Named(templates)) => {
                    let names: Vec<&str> = templates.iter().map(|named| named.name.as_str()).collect();
                    let Some(default) = names.iter().position(|name| *name == "default") else {
                        let reason = format!("there is no template `default`, but {}", names.join(", "));
                        return Err(Error::ChatTemplate { path, reason });
                    };
                    let source = templates.into_iter().nth(default).map(|named| named.template);
                    (path, source.unwrap_or_default())
                }
            }
        };
        let tokens = [
            ("bos_token", config.bos_token),
            ("eos_token", config.eos_token),
            ("unk_token", config.unk_token),
            ("pad_token", config.pad_token),
        ];
        let special =
            tokens.iter().filter_map(|(key, token)| Some((*key, token.as_ref()?.text().to_owned())));
        Self::new(path, source, special.collect()).map(Some)
    }

    /// Reads the template of a GGUF file, if it has one.
    ///
    /// # Errors
    /// Fails if the metadata contradict themselves, or if the template is no Jinja template.
    pub fn of_gguf(gguf: &Gguf) -> Result<Option<Self>, Error> {
        let Some(source) = gguf.get::<&str>("tokenizer.chat_template")? else { return Ok(None) };
        let tokens = GgufTokens::read(gguf)?;
        let names: Array<'_> = gguf.require("tokenizer.ggml.tokens")?;
        let of = [
            ("bos_token", tokens.begin),
            ("eos_token", tokens.end),
            ("unk_token", tokens.unknown),
            ("pad_token", tokens.pad),
        ];
        let special: BTreeMap<&'static str, String> = of
            .into_iter()
            .filter_map(|(key, token)| match names.iter().nth(token? as usize)? {
                calm_gguf::Value::String(name) => Some((key, name.to_owned())),
                _ => None,
            })
            .collect();
        Self::new(gguf.path().to_owned(), source.to_owned(), special).map(Some)
    }
}
