use calm_core::Token;

use crate::Error;

/// Checks that an encoder can read all of `sources`.
///
/// # Errors
/// Fails if a source is empty, or holds a token for which the embedding has no row.
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
