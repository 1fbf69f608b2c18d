//! Texts in which no name of a token that controls is that token: what somebody else wrote.

use calm_core::Token;
use tokenizers::models::ModelWrapper;

use super::{Tokenizer, catch};
use crate::Error;

/// A token that controls, and is no text.
pub(crate) struct ControlToken {
    pub(crate) token: Token,
    pub(crate) name: String,
    /// Whether white space before its name, and behind it, is no text either.
    pub(crate) takes_space: [bool; 2],
}

impl Tokenizer {
    /// Returns the tokens of a text as [`encode`](Self::encode) does, but for the names of tokens that
    /// control, which are text like any other.
    ///
    /// # Errors
    /// Fails if the tokenizer cannot represent the text.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<Token>, Error> {
        let mut tokens = self.plain_tokens(text, true)?;
        tokens.extend(self.added_end);
        Ok(tokens)
    }

    /// Lists the tokens that control.
    pub(crate) fn control_tokens(&self) -> Vec<ControlToken> {
        let added = self.inner.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, added)| added.special && !added.content.is_empty());
        let mut control: Vec<ControlToken> = special
            .map(|(&token, added)| ControlToken {
                token,
                name: added.content.clone(),
                takes_space: [added.lstrip, added.rstrip],
            })
            .collect();
        // The longest of those that a text has at one place is the token.
        control.sort_by(|a, b| b.name.len().cmp(&a.name.len()).then(a.token.cmp(&b.token)));
        control
    }

    /// The tokens of a text with such that control where their names are. What is between them is text once
    /// `unshielded` has seen it.
    pub(crate) fn tokens_with_control(
        &self,
        text: &str,
        control: &[ControlToken],
        unshielded: impl Fn(&str) -> String,
    ) -> Result<Vec<Token>, Error> {
        let mut tokens = Vec::new();
        let mut rest = text;
        let mut trims_start = false;
        loop {
            let found = first_control(rest, control);
            let (mut piece, behind) = match found {
                Some((at, token)) => (&rest[..at], &rest[at + token.name.len()..]),
                None => (rest, ""),
            };
            if trims_start {
                piece = piece.trim_start();
            }
            if found.is_some_and(|(_, token)| token.takes_space[0]) {
                piece = piece.trim_end();
            }
            if !piece.is_empty() {
                tokens.extend(self.plain_tokens(&unshielded(piece), false)?);
            }
            let Some((_, token)) = found else { return Ok(tokens) };
            tokens.push(token.token);
            trims_start = token.takes_space[1];
            rest = behind;
        }
    }

    /// The tokens of a text without such that control, with what the template puts around it if `framed`.
    pub(super) fn plain_tokens(&self, text: &str, framed: bool) -> Result<Vec<Token>, Error> {
        let plain = self.without_control.get_or_init(|| catch(|| without_control(&self.inner)).map(Box::new));
        let plain = plain.as_ref().map_err(|reason| self.error(reason.clone()))?;
        let encoding = catch(|| plain.encode_fast(text, framed))
            .map_err(|reason| self.failed("encode a text", reason))?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// The first name of a token that controls in a text, and where it is. Of several at one place, the first in
/// the list is it.
fn first_control<'a>(text: &str, control: &'a [ControlToken]) -> Option<(usize, &'a ControlToken)> {
    text.char_indices().find_map(|(at, _)| {
        let token = control.iter().find(|token| text[at..].starts_with(&token.name))?;
        Some((at, token))
    })
}

/// A tokenizer to which special tokens are text.
fn without_control(tokenizer: &tokenizers::Tokenizer) -> tokenizers::Result<tokenizers::Tokenizer> {
    let mut plain = tokenizer.clone();
    if let ModelWrapper::Unigram(model) = tokenizer.get_model() {
        // A unigram model finds every entry of its vocabulary in a text: these get names that no word has,
        // since words are without spaces.
        let mut document = serde_json::to_value(model)?;
        let special = tokenizer.get_added_tokens_decoder();
        for (token, _) in special.iter().filter(|(_, added)| added.special) {
            document["vocab"][*token as usize][0] = format!(" \u{fdd0}{token}").into();
        }
        plain.with_model(serde_json::from_value::<ModelWrapper>(document)?);
    }
    plain.set_encode_special_tokens(true);
    Ok(plain)
}
