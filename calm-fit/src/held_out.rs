//! The examples that something is fitted to, and those that are held out to see how far it can be trusted.

use calm_checkpoint::source_hash;
use calm_core::{FittedTo, Observation, Token};

use crate::Error;
use crate::observe::{Observations, Reading};

/// One of so many examples is held out.
const HELD_OUT: usize = 4;

/// Fewer examples than these are not fitted to.
pub const FEWEST_EXAMPLES: usize = 2 * HELD_OUT;

/// Examples by the hashes of their sources, so that their order does not matter.
pub(crate) struct Split<'a> {
    fitted: Vec<&'a [Vec<Reading>]>,
    held_out: Vec<&'a [Vec<Reading>]>,
    fitted_to: FittedTo,
}

impl<'a> Split<'a> {
    /// Holds out one in four examples.
    ///
    /// # Errors
    /// There are fewer than 8.
    pub(crate) fn new(observations: &'a Observations, sources: &[Vec<Token>]) -> Result<Self, Error> {
        if sources.len() < FEWEST_EXAMPLES {
            let count = sources.len();
            return Err(Error::Data(format!(
                "a confidence is fitted to at least {FEWEST_EXAMPLES} examples, and the number of these is {count}"
            )));
        }
        let mut hashed: Vec<(String, usize)> =
            sources.iter().enumerate().map(|(index, source)| (source_hash(source), index)).collect();
        hashed.sort();
        let (mut fitted, mut held_out) = (Vec::new(), Vec::new());
        for (place, (_, index)) in hashed.iter().enumerate() {
            let examples = if place % HELD_OUT == 0 { &mut held_out } else { &mut fitted };
            examples.push(observations.examples[*index].as_slice());
        }
        let mut sources: Vec<String> = hashed.into_iter().map(|(hash, _)| hash).collect();
        sources.dedup();
        Ok(Self { fitted, held_out, fitted_to: FittedTo { tokens: observations.tokens(), sources } })
    }

    /// What is to be fitted to: the confidences at one place among a token's readings, and 1 where the token
    /// agrees.
    pub(crate) fn fitted_observations(&self, place: usize) -> impl Iterator<Item = Observation> {
        readings(&self.fitted, place).map(|Reading { confidence, agrees }| Observation {
            x: confidence,
            y: f32::from(u8::from(agrees)),
        })
    }

    /// The readings at one place of the examples that were held out.
    pub(crate) fn held_out_readings(&self, place: usize) -> Vec<Reading> {
        readings(&self.held_out, place).collect()
    }

    /// All of the examples: those that were held out have decided whether a fit is used.
    pub(crate) fn fitted_to(&self) -> FittedTo {
        self.fitted_to.clone()
    }
}

fn readings(examples: &[&[Vec<Reading>]], place: usize) -> impl Iterator<Item = Reading> {
    examples.iter().flat_map(|tokens| tokens.iter()).map(move |readings| readings[place])
}

/// Outputs without a token.
pub(crate) fn no_tokens() -> Error {
    Error::Data("the outputs have no tokens to fit a confidence to".to_owned())
}

/// A model that no token can leave early.
pub(crate) fn no_exits() -> Error {
    Error::Data("a decoder of one layer has no exits to fit a confidence for".to_owned())
}
