//! Texts in which no name of a token that controls is that token: what somebody else wrote.

use calm_core::Token;
use tokenizers::models::ModelWrapper;

use super::{Tokenizer, catch};
use crate::Error;

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

    /// The tokens of a text without such that control, with what the template puts around it if `framed`.
    pub(super) fn plain_tokens(&self, text: &str, framed: bool) -> Result<Vec<Token>, Error> {
        let plain = self.without_control.get_or_init(|| catch(|| without_control(&self.inner)).map(Box::new));
        let plain = plain.as_ref().map_err(|reason| self.error(reason.clone()))?;
        let encoding = catch(|| plain.encode_fast(text, framed))
            .map_err(|reason| self.failed("encode a text", reason))?;
        Ok(encoding.get_ids().to_vec())
    }
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
