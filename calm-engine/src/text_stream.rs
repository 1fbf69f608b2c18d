//! The text of an output while it is decoded.

use calm_core::Token;

use crate::engine::TextCodec;

/// What decoders put where bytes are no text, or not yet.
const REPLACEMENT: char = '\u{fffd}';

/// Turns tokens into pieces of text, one token after the other. No piece ends inside a character, whose bytes
/// may lie in several tokens; all pieces together are the text of all tokens.
///
/// Each time all tokens are decoded anew, which is what makes the pieces right: what a token stands for
/// depends on those around it. For outputs of some thousand tokens it costs far less than a layer.
pub struct TextStream<'a> {
    codec: &'a dyn TextCodec,
    tokens: Vec<Token>,
    /// What was given out, as the tokens have it by now.
    text: String,
}

impl<'a> TextStream<'a> {
    /// Begins an output.
    pub fn new(codec: &'a dyn TextCodec) -> Self {
        Self { codec, tokens: Vec::new(), text: String::new() }
    }

    /// Adds a token: the text that is certain now and was not before, which may be none.
    ///
    /// # Errors
    /// The tokens have no text.
    pub fn push(&mut self, token: Token) -> anyhow::Result<String> {
        self.tokens.push(token);
        let decoded = self.codec.decode(&self.tokens)?;
        // What comes next may complete a character.
        Ok(self.give_out(decoded.trim_end_matches(REPLACEMENT)))
    }

    /// Ends the output: the rest of its text.
    ///
    /// # Errors
    /// The tokens have no text.
    pub fn finish(&mut self) -> anyhow::Result<String> {
        let decoded = self.codec.decode(&self.tokens)?;
        Ok(self.give_out(&decoded))
    }

    /// The text so far, without characters that are not complete.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The part of a text behind what was given out. Where bytes that turn out to be no text have changed
    /// what was given out, which cannot be taken back, all from the first change on follows.
    fn give_out(&mut self, decoded: &str) -> String {
        if self.text.starts_with(decoded) {
            return String::new();
        }
        let common = common_length(&self.text, decoded);
        decoded.clone_into(&mut self.text);
        decoded[common..].to_owned()
    }
}

/// Finds where the text of each token ends in `text`, the text of all `tokens`, in bytes: a token that
/// completes no character ends where the one before it does.
///
/// # Errors
/// The tokens have no text.
pub fn token_ends(codec: &dyn TextCodec, tokens: &[Token], text: &str) -> anyhow::Result<Vec<usize>> {
    let mut ends = Vec::with_capacity(tokens.len());
    let mut end = 0;
    for count in 1..=tokens.len() {
        // The last token ends the text, whatever it stands for.
        end = match count == tokens.len() {
            true => text.len(),
            false => common_length(&codec.decode(&tokens[..count])?, text).max(end),
        };
        ends.push(end);
    }
    Ok(ends)
}

/// Number of bytes of the characters that two texts begin with.
fn common_length(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}
