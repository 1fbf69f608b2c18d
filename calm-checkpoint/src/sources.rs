use std::path::Path;

use calm_core::Token;
use serde_json::Value;
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

/// Length in tokens of the longest source that a model was trained with, where its folder says so: in
/// `training.json`, which `calm train` writes, or as `n_positions` in `config.json`, as T5's first releases
/// do.
pub fn trained_source_tokens(dir: &Path) -> Option<usize> {
    let read = |name: &str| calm_files::read_json::<Value>(&dir.join(name)).ok();
    let written =
        read("training.json").and_then(|json| json.pointer("/config/data/max_source_tokens")?.as_u64());
    let of_release = || read("config.json").and_then(|json| json.get("n_positions")?.as_u64());
    usize::try_from(written.or_else(of_release)?).ok()
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

/// Checks that a decoder has positions for each prompt and an output of `max_tokens` behind it. The last
/// token of an output is never an input.
///
/// # Errors
/// Fails if a prompt and its output are longer than `positions` together.
pub fn check_context(
    prompt_lengths: impl IntoIterator<Item = usize>,
    max_tokens: usize,
    positions: usize,
) -> Result<(), Error> {
    for (row, length) in prompt_lengths.into_iter().enumerate() {
        if length + max_tokens.saturating_sub(1) > positions {
            return Err(Error::ContextTooLong { row, length, max_tokens, positions });
        }
    }
    Ok(())
}

/// Which part of a source stays that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The beginning, and the last token, which ends the source: what an encoder summarises or translates.
    Beginning,
    /// The end, which a decoder goes on from, and the tokens in front of the text, such as the one that
    /// begins all texts.
    End {
        /// Number of tokens in front of the text.
        first: usize,
    },
}

/// Cuts a source that is longer than `limit` tokens, which is at least 1.
pub fn cut_source(tokens: &mut Vec<Token>, limit: usize, kept: Kept) {
    let excess = tokens.len().saturating_sub(limit);
    if excess == 0 {
        return;
    }
    match kept {
        Kept::Beginning => drop(tokens.drain(tokens.len() - excess - 1..tokens.len() - 1)),
        Kept::End { first } => {
            let first = first.min(limit - 1);
            drop(tokens.drain(first..first + excess));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kept, check_context, cut_source};

    #[test]
    fn a_source_that_is_cut_keeps_its_end() {
        let cut = |length, limit, kept| {
            let mut tokens: Vec<u32> = (1..=length).collect();
            cut_source(&mut tokens, limit, kept);
            tokens
        };
        for kept in [Kept::Beginning, Kept::End { first: 1 }] {
            assert_eq!(cut(3, 3, kept), [1, 2, 3], "{kept:?}");
            assert_eq!(cut(2, 3, kept), [1, 2], "{kept:?}");
            assert_eq!(cut(5, 1, kept), [5], "{kept:?}");
        }
        assert_eq!(cut(6, 4, Kept::Beginning), [1, 2, 3, 6]);
        assert_eq!(cut(6, 4, Kept::End { first: 0 }), [3, 4, 5, 6]);
        assert_eq!(cut(6, 4, Kept::End { first: 1 }), [1, 4, 5, 6]);
        assert_eq!(cut(6, 2, Kept::End { first: 9 }), [1, 6]);
    }

    #[test]
    fn the_last_token_of_an_output_needs_no_position() {
        assert!(check_context([3, 7], 4, 10).is_ok());
        let error = check_context([3, 8], 4, 10).unwrap_err().to_string();
        assert!(error.contains("prompt 1 of the batch has 8 tokens"), "{error}");
    }
}
