//! Numbers that became too large on the way through a network, noticed by what they lead to.
//!
//! A state that holds an infinite number, or one that is none, keeps it, since layers add to states, and
//! makes all logits none. A state whose square is infinite has a norm of zeros, and logits of 0. Of such
//! logits the best token is the lowest, or its margin is not above 0; this hardly happens otherwise. States
//! are looked at after such an answer alone, so that decoding is not slower for it.

use crate::backbone::{DecoderSession, Entry, Token};
use crate::error::{DecodeError, EngineError, NotFinite};
use crate::matrix::{Top2, dot};

/// The best token where no logit is better than another.
pub(crate) const LOWEST_TOKEN: Token = 0;

/// Whether the answer for an entry may be due to numbers that are not finite.
pub(crate) fn is_suspicious(top2: &Top2) -> bool {
    // No margin that is not a number is above 0.
    let is_ahead = top2.margin > 0.0;
    top2.token == LOWEST_TOKEN || !is_ahead
}

/// The first of some entries whose state is too large, if any is.
pub(crate) fn first_too_large(
    session: &mut dyn DecoderSession,
    entries: &[Entry],
) -> Result<Option<Entry>, EngineError> {
    let states = session.hidden(entries)?;
    // Norms divide by the sum of squares, in f32.
    let fits = |state: &[f32]| dot(state, state) <= f64::from(f32::MAX);
    Ok(entries.iter().zip(states.rows()).find(|(_, state)| !fits(state)).map(|(&entry, _)| entry))
}

/// The error for what `layer` made of an entry.
pub(crate) fn error(what: NotFinite, layer: usize, entry: Entry) -> DecodeError {
    DecodeError::NotFinite { what, layer, row: entry.row, step: entry.position + 1 }
}
