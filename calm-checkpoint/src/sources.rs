use calm_core::Token;
use sha2::{Digest, Sha256};

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

/// The first 16 hexadecimal digits of the SHA-256 of a source's tokens: what says whether an example was used
/// for something, without keeping it.
pub fn source_hash(tokens: &[Token]) -> String {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    let mut hash = calm_files::hex(&Sha256::digest(bytes));
    hash.truncate(16);
    hash
}

/// The seed of what is drawn for a source, of a program's seed: it depends on nothing else, such as the
/// batch or the file that the source is in.
pub fn source_seed(seed: u64, tokens: &[Token]) -> u64 {
    let bytes = tokens.iter().flat_map(|token| token.to_le_bytes());
    let digest = Sha256::digest(seed.to_le_bytes().into_iter().chain(bytes).collect::<Vec<u8>>());
    digest.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Cuts a source that is longer than `limit` tokens, which is at least 1. Its last token stays, since it ends
/// the source.
pub fn cut_source(tokens: &mut Vec<Token>, limit: usize) {
    if tokens.len() > limit {
        tokens.drain(limit - 1..tokens.len() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::cut_source;

    #[test]
    fn a_source_that_is_cut_keeps_its_end() {
        for (limit, expected) in
            [(1, &[9][..]), (2, &[5, 9]), (3, &[5, 6, 9]), (4, &[5, 6, 7, 9]), (5, &[5, 6, 7, 9])]
        {
            let mut tokens = vec![5, 6, 7, 9];
            cut_source(&mut tokens, limit);
            assert_eq!(tokens, expected, "{limit}");
        }
    }
}
