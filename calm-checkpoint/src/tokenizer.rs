use std::path::Path;

use calm_core::Token;

use crate::Error;

/// `tokenizer.json` of a checkpoint.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// The file is missing or is not a tokenizer.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let inner = tokenizers::Tokenizer::from_file(path)
            .map_err(|error| Error::Tokenizer(format!("{}: {error}", path.display())))?;
        Ok(Tokenizer { inner })
    }

    /// Tokens of a text, with the end-of-sequence token that the tokenizer's template appends.
    ///
    /// # Errors
    /// The tokenizer cannot represent the text.
    pub fn encode(&self, text: &str) -> Result<Vec<Token>, Error> {
        let encoding =
            self.inner.encode_fast(text, true).map_err(|error| Error::Tokenizer(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of tokens, without the special ones.
    ///
    /// # Errors
    /// The tokenizer's decoder failed.
    pub fn decode(&self, tokens: &[Token]) -> Result<String, Error> {
        self.inner.decode(tokens, true).map_err(|error| Error::Tokenizer(error.to_string()))
    }

    /// Number of tokens; a model's padded vocabulary may be larger.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}
