//! Keys that `config.json` and `generation_config.json` of all networks have in common.

use std::path::Path;

use calm_core::Token;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};

use crate::Error;

/// The largest size that a key of `config.json` may have, so that products of two of them do not overflow.
pub(crate) const LARGEST_SIZE: i64 = i32::MAX as i64;

/// The largest number of layers, dozens of times that of any network. What is known of each fills memory.
const MOST_LAYERS: i64 = 10_000;

/// The keys of the special tokens, in either file.
#[derive(Default, Deserialize)]
pub(crate) struct TokenKeys {
    pub(crate) pad_token_id: Option<i64>,
    /// One token or a list of them; null says that no token ends an output.
    #[serde(default, deserialize_with = "even_if_null")]
    pub(crate) eos_token_id: Option<Option<TokenIds>>,
    /// Null says that there is none.
    #[serde(default, deserialize_with = "even_if_null")]
    pub(crate) bos_token_id: Option<Option<i64>>,
    pub(crate) decoder_start_token_id: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a token or a list of tokens")]
pub(crate) enum TokenIds {
    One(i64),
    Many(Vec<i64>),
}

impl TokenKeys {
    /// The end tokens of `config.json`; `default` if it leaves the key out.
    pub(crate) fn ends(&mut self, default: Token, vocab_size: i64) -> Result<Vec<Token>, String> {
        match self.eos_token_id.take() {
            None => Ok(vec![token("eos_token_id", default.into(), vocab_size)?]),
            Some(None) => Ok(Vec::new()),
            Some(Some(ids)) => ids.tokens(vocab_size),
        }
    }

    /// The end tokens of `generation_config.json`, if it names any. transformers takes a file without the key
    /// to mean that outputs never end, which nobody wants.
    pub(crate) fn generation_ends(&mut self, vocab_size: i64) -> Result<Option<Vec<Token>>, String> {
        self.eos_token_id.take().flatten().map(|ids| ids.tokens(vocab_size)).transpose()
    }
}

impl TokenIds {
    fn tokens(self, vocab_size: i64) -> Result<Vec<Token>, String> {
        let ids = match self {
            TokenIds::One(id) => vec![id],
            TokenIds::Many(ids) => ids,
        };
        ids.into_iter().map(|id| token("eos_token_id", id, vocab_size)).collect()
    }
}

/// The token that the value of a key is. A vocabulary of no size is left to [`check_sizes`] to refuse.
pub(crate) fn token(key: &str, value: i64, vocab_size: i64) -> Result<Token, String> {
    let token = Token::try_from(value).ok().filter(|_| value < vocab_size || vocab_size < 1);
    token.ok_or_else(|| format!("{key} is {value}, but the vocabulary has tokens 0 to {}", vocab_size - 1))
}

/// Reads the keys of `config.json` at `path` and its special tokens, makes a configuration of them, and has
/// the special tokens of `generation_config.json` beside it, if there is one, change it.
pub(crate) fn read_config<Keys: DeserializeOwned, Config>(
    path: &Path,
    config: impl FnOnce(Keys, TokenKeys) -> Result<Config, String>,
    apply_generation: impl FnOnce(&mut Config, TokenKeys) -> Result<(), String>,
    check: impl FnOnce(&Config) -> Result<(), String>,
) -> Result<Config, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |reason| Error::Config { path, reason }
    };
    let text = calm_files::read_to_string(path)?;
    let keys: Keys = calm_files::parse_json(path, &text)?;
    let tokens: TokenKeys = calm_files::parse_json(path, &text)?;
    let mut config = config(keys, tokens).map_err(failed(path))?;
    let generation = path.with_file_name("generation_config.json");
    if generation.is_file() {
        let tokens = calm_files::read_json(&generation)?;
        apply_generation(&mut config, tokens).map_err(failed(&generation))?;
    }
    check(&config).map_err(failed(path))?;
    Ok(config)
}

/// Names the first size that no network has.
pub(crate) fn check_sizes(sizes: &[(&str, i64)]) -> Result<(), String> {
    if let Some((key, value)) = sizes.iter().find(|(_, value)| *value < 1) {
        return Err(format!("{key} is {value}, but must be at least 1"));
    }
    if let Some((key, value)) = sizes.iter().find(|(_, value)| *value > LARGEST_SIZE) {
        return Err(format!("{key} is {value}, but must be at most {LARGEST_SIZE}"));
    }
    Ok(())
}

/// Names the first number of layers that no network has.
pub(crate) fn check_layers(layers: &[(&str, i64)]) -> Result<(), String> {
    check_sizes(layers)?;
    match layers.iter().find(|(_, value)| *value > MOST_LAYERS) {
        Some((key, value)) => Err(format!("{key} is {value}, but must be at most {MOST_LAYERS}")),
        None => Ok(()),
    }
}

/// Refuses what a norm cannot add to the variance. It must not vanish in f32 either: a normalisation of zeros
/// would then divide by zero.
pub(crate) fn check_epsilon(key: &str, epsilon: f64) -> Result<(), String> {
    match epsilon.is_finite() && epsilon as f32 > 0.0 {
        true => Ok(()),
        false => Err(format!("{key} is {epsilon}, but must be positive, such as 1e-6")),
    }
}

/// Refuses a network whose outputs would not end.
pub(crate) fn check_ends(ends: &[Token]) -> Result<(), String> {
    match ends {
        [] => Err("eos_token_id names no token, so that no output would end".to_owned()),
        _ => Ok(()),
    }
}

/// Writes one token as a number and several as a list, as transformers does.
pub(crate) fn one_or_list<S: Serializer>(tokens: &[Token], serializer: S) -> Result<S::Ok, S::Error> {
    match tokens {
        [token] => token.serialize(serializer),
        tokens => tokens.serialize(serializer),
    }
}

/// Tells a key that is null from one that is missing.
fn even_if_null<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}
