use calm_core::Token;

use crate::Error;

/// Whether an encoder can read all of `sources`.
///
/// # Errors
/// A source is empty, or holds a token that the embedding has no row for.
pub fn check_sources(sources: &[&[Token]], vocab_size: usize) -> Result<(), Error> {
    for (row, source) in sources.iter().enumerate() {
        if source.is_empty() {
            return Err(Error::EmptySource { row });
        }
        if let Some(&token) = source.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(Error::TokenOutOfRange { row, token, vocab_size });
        }
    }
    Ok(())
}
