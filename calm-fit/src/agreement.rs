//! The maps from confidences to probabilities that the layer's token is the last layer's.

use calm_core::{AgreementMap, AgreementMaps, Exits, MonotoneMap, Token};

use crate::Error;
pub use crate::held_out::FEWEST_EXAMPLES;
use crate::held_out::{Split, no_exits, no_tokens};
use crate::observe::Observations;
use crate::reliability::Reliability;

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
    let split = Split::new(observations, sources)?;
    let (mut maps, mut reliability) = (Vec::new(), Vec::new());
    let mut place = 0;
    for stream in &observations.streams {
        for layer in stream.exits.layers() {
            let tests = stream.memory.tests(stream.exits, layer);
            let observed = split.fitted_observations(place);
            let map = MonotoneMap::fit(observed).ok_or_else(no_tokens)?;
            let held_out = split.held_out_readings(place);
            reliability.push(Reliability::new(stream.measure.name, tests, |x| map.at(x), &held_out));
            maps.push(AgreementMap { measure: stream.measure.name.to_owned(), tests, map });
            place += 1;
        }
    }
    if maps.is_empty() {
        return Err(no_exits());
    }
    Ok(Fitted { maps: AgreementMaps { fitted_to: split.fitted_to(), maps }, reliability })
}

/// The layer that a set of tests was made for.
pub fn layer_of(tests: Exits) -> usize {
    tests.layers().last().unwrap_or(0)
}
