use std::path::Path;

use calm_core::Token;

use crate::Error;

/// The `tokenizer.json` of a checkpoint.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// Fails if the file is missing or is not a tokenizer.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let inner = tokenizers::Tokenizer::from_file(path)
            .map_err(|error| Error::Tokenizer(format!("{}: {error}", path.display())))?;
        Ok(Tokenizer { inner })
    }

    /// Returns the tokens of a text, with the end-of-sequence token that the tokenizer's template appends.
    ///
    /// # Errors
    /// Fails if the tokenizer cannot represent the text.
    pub fn encode(&self, text: &str) -> Result<Vec<Token>, Error> {
        let encoding =
            self.inner.encode_fast(text, true).map_err(|error| Error::Tokenizer(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Returns the text of tokens, without the special ones.
    ///
    /// # Errors
    /// Fails if the tokenizer's decoder fails.
    pub fn decode(&self, tokens: &[Token]) -> Result<String, Error> {
        self.inner.decode(tokens, true).map_err(|error| Error::Tokenizer(error.to_string()))
    }

    /// Number of tokens; a model's padded vocabulary may be larger.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}
