//! The maps from confidences to probabilities that the layer's token is the last layer's.

use calm_checkpoint::source_hash;
use calm_core::{AgreementMap, AgreementMaps, Exits, FittedTo, MonotoneMap, Observation, Token};

use crate::Error;
use crate::observe::Observations;
use crate::reliability::Reliability;

/// One of so many examples is held out, to see how far the maps can be trusted.
const HELD_OUT: usize = 4;

/// Fewer examples than these are not fitted to.
pub const FEWEST_EXAMPLES: usize = 2 * HELD_OUT;

/// Maps, and how they fare on the examples that were held out.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// To be written beside the model.
    pub maps: AgreementMaps,
    /// One for each map, in the same order.
    pub reliability: Vec<Reliability>,
}

/// Fits a map for each reading of a token by isotonic regression. One in four examples, by the hash of its
/// source, is held out. The order of the examples does not matter.
///
/// # Errors
/// There are fewer than 8 examples, or a model of a single layer.
pub fn fit(observations: &Observations, sources: &[Vec<Token>]) -> Result<Fitted, Error> {
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
        examples.push(&observations.examples[*index]);
    }
    let (mut maps, mut reliability) = (Vec::new(), Vec::new());
    let mut place = 0;
    for stream in &observations.streams {
        for layer in stream.exits.layers() {
            let tests = stream.memory.tests(stream.exits, layer);
            let readings = |examples: &[&Vec<Vec<_>>]| {
                let tokens = examples.iter().flat_map(|tokens| tokens.iter());
                tokens.map(|readings| readings[place]).collect::<Vec<crate::observe::Reading>>()
            };
            let observed = readings(&fitted)
                .into_iter()
                .map(|reading| Observation { x: reading.confidence, y: f32::from(u8::from(reading.agrees)) });
            let map = MonotoneMap::fit(observed)
                .ok_or_else(|| Error::Data("the outputs have no tokens to fit a confidence to".to_owned()))?;
            reliability.push(Reliability::new(stream.measure.name, tests, &map, &readings(&held_out)));
            maps.push(AgreementMap { measure: stream.measure.name.to_owned(), tests, map });
            place += 1;
        }
    }
    if maps.is_empty() {
        return Err(Error::Data("a decoder of one layer has no exits to fit a confidence for".to_owned()));
    }
    let mut hashes: Vec<String> = hashed.into_iter().map(|(hash, _)| hash).collect();
    hashes.dedup();
    let fitted_to = FittedTo { tokens: observations.tokens(), sources: hashes };
    Ok(Fitted { maps: AgreementMaps { fitted_to, maps }, reliability })
}

/// The layer that a set of tests was made for.
pub fn layer_of(tests: Exits) -> usize {
    tests.layers().last().unwrap_or(0)
}
