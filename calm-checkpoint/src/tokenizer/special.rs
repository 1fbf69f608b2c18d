//! Which tokens end and begin a sequence: what tokenizer and configuration say, and whether they agree.

use std::path::Path;

use calm_core::Token;
use serde::Deserialize;

use super::Tokenizer;
use crate::{Error, Kept, LlamaConfig, T5Config};

/// The token that ends a T5's sequences, where nothing names another one.
const END: &str = "</s>";
/// What tokenizers call the token that fills up batches.
const PADDING: [&str; 2] = ["<pad>", "[PAD]"];

/// The tokens of a network with a meaning of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// It fills up batches, and is the first input of the decoder.
    pub pad: Token,
    /// It ends sources and outputs.
    pub end: Token,
}

impl Tokenizer {
    /// The tokenizer for a model: texts end with a token that ends the model's sequences too. Where the
    /// template puts none there, it is added.
    ///
    /// # Errors
    /// The template ends texts with a token at which the model does not end, or there is no token that could
    /// end them, or no output would end.
    pub fn for_model(mut self, config: &T5Config) -> Result<Self, Error> {
        let ends = || config.eos_token_id.iter().chain(config.end_tokens()).copied();
        let listed = config.eos_token_id.iter().map(Token::to_string).collect::<Vec<_>>().join(", ");
        if let Some(&end) = self.template_end.last() {
            if !ends().any(|token| self.template_end.contains(&token)) {
                let name = self.name(end).unwrap_or_default();
                return Err(self.error(format!(
                    "it ends a text with token {end}, `{name}`, but eos_token_id of config.json is {listed}, so \
                     that outputs would not end: make eos_token_id {end} if the model was trained with this tokenizer"
                )));
            }
        } else {
            let by_name = self.inner.token_to_id(END).filter(|&end| ends().any(|token| token == end));
            let end = by_name.or_else(|| {
                let is_special = |&token: &Token| self.name(token).is_some_and(|name| self.is_special(&name));
                config.eos_token_id.iter().copied().find(is_special)
            });
            let Some(end) = end else {
                let found = config.eos_token_id.first().and_then(|&token| self.name(token));
                let found = found.map_or("no token".to_owned(), |name| format!("`{name}`"));
                let other = self.inner.token_to_id(END).map(|token| format!(" and `{END}` is token {token}"));
                return Err(self.error(format!(
                    "it puts no token behind a text, and eos_token_id of config.json is {listed}, which is {found} \
                     here{}: the tokenizer and config.json are not of one model",
                    other.unwrap_or_default()
                )));
            };
            self.add_end(end)?;
        }
        self.check_ends(config.end_tokens())?;
        Ok(self)
    }

    /// Reads the `tokenizer.json` of a decoder that goes on from a text. Texts begin and end as its template
    /// says: in most of them with the token that begins texts, and with nothing behind.
    ///
    /// # Errors
    /// Fails if the file is missing or is not a tokenizer, or if no output of the model would end.
    pub(crate) fn of_prompts(path: &Path, config: &LlamaConfig) -> Result<Self, Error> {
        let mut tokenizer = Self::plain(path)?;
        tokenizer.kept = Kept::End { first: tokenizer.template_start };
        tokenizer.check_ends(config.end_tokens())?;
        // What ends an output is no part of its text.
        for &end in config.end_tokens() {
            if let Some(name) = tokenizer.name(end) {
                tokenizer.make_special(&name)?;
            }
        }
        Ok(tokenizer)
    }

    /// Refuses end tokens that all lie behind the vocabulary, where no logits are.
    fn check_ends(&self, ends: &[Token]) -> Result<(), Error> {
        if ends.iter().any(|&token| (token as usize) < self.vocab_size) {
            return Ok(());
        }
        let listed = ends.iter().map(Token::to_string).collect::<Vec<_>>().join(", ");
        Err(self.error(format!(
            "it has tokens 0 to {}, but eos_token_id is {listed}, so that no output would end",
            self.vocab_size.saturating_sub(1)
        )))
    }

    /// The tokenizer for a model that is to be made, and whose special tokens are
    /// [`special_tokens`](Self::special_tokens).
    ///
    /// # Errors
    /// As [`special_tokens`](Self::special_tokens).
    pub fn for_new_model(mut self) -> Result<Self, Error> {
        let SpecialTokens { end, .. } = self.special_tokens()?;
        if self.template_end.is_empty() {
            self.add_end(end)?;
        }
        Ok(self)
    }

    /// The special tokens of a model that is to be made. Where the tokenizer itself has none of T5's, they
    /// are those that `tokenizer_config.json` beside it names.
    ///
    /// # Errors
    /// Nothing says what ends a text or what fills up batches.
    pub fn special_tokens(&self) -> Result<SpecialTokens, Error> {
        let names = self.names()?;
        let by_name = || {
            let name = names.eos_token.as_ref().map_or(END, TokenName::text);
            // A checkpoint has no other file that tells which token it is.
            self.inner.token_to_id(name).filter(|_| self.is_special(name)).ok_or_else(|| {
                self.error(format!(
                    "it puts no token behind a text and has no special token `{name}` that could end one: name the \
                     token as \"eos_token\" in tokenizer_config.json beside it"
                ))
            })
        };
        let end = self.template_end.last().copied().map_or_else(by_name, Ok)?;
        let pad = match &names.pad_token {
            Some(name) => self.inner.token_to_id(name.text()),
            None => PADDING.iter().find_map(|name| self.inner.token_to_id(name)),
        };
        let pad = pad.ok_or_else(|| {
            let name = names.pad_token.as_ref().map_or(PADDING[0], TokenName::text);
            self.error(format!(
                "it has no token `{name}` to fill up batches and to begin outputs with: name the token as \
                 \"pad_token\" in tokenizer_config.json beside it"
            ))
        })?;
        Ok(SpecialTokens { pad, end })
    }

    fn add_end(&mut self, end: Token) -> Result<(), Error> {
        self.added_end = Some(end);
        let name = self.name(end);
        name.map_or(Ok(()), |name| self.make_special(&name))
    }

    fn names(&self) -> Result<TokenNames, Error> {
        let path = self.path.with_file_name("tokenizer_config.json");
        if !path.is_file() {
            return Ok(TokenNames::default());
        }
        Ok(calm_files::read_json(&path)?)
    }
}

/// What `tokenizer_config.json` says about the special tokens.
#[derive(Default, Deserialize)]
struct TokenNames {
    eos_token: Option<TokenName>,
    pad_token: Option<TokenName>,
}

/// A token as `tokenizer_config.json` names it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected the text of a token, or an object with its content")]
pub(crate) enum TokenName {
    Text(String),
    Object { content: String },
}

impl TokenName {
    pub(crate) fn text(&self) -> &str {
        match self {
            TokenName::Text(text) | TokenName::Object { content: text } => text,
        }
    }
}
