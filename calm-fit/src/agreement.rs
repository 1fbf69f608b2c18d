//! The maps from confidences to what they mean: the probability that the layer's token is the last layer's,
//! or a level of agreement.

use calm_core::{AgreementMap, AgreementMaps, Exits, MapRule, MeasureKind, Token};

use crate::Error;
pub use crate::held_out::FEWEST_EXAMPLES;
use crate::held_out::{Split, no_exits, no_tokens};
use crate::observe::{Observations, mapped_measures};
use crate::reliability::Reliability;

/// Maps, and how they fare on the examples that were held out.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// To be written beside the model.
    pub maps: AgreementMaps,
    /// One for each map of probabilities, in the same order. A level of agreement says nothing about a token
    /// of just that confidence, which could be compared.
    pub reliability: Vec<Reliability>,
}

/// Fits a map for each reading of a token by each rule that its measure is mapped by. One in four examples,
/// by the hash of its source, is held out. The order of the examples does not matter.
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
            for rule in rules_for(stream.measure) {
                let map = rule.fit(split.fitted_observations(place)).ok_or_else(no_tokens)?;
                if rule == MapRule::Isotonic {
                    let held_out = split.held_out_readings(place);
                    reliability.push(Reliability::new(stream.measure.name, tests, |x| map.at(x), &held_out));
                }
                maps.push(AgreementMap { measure: stream.measure.name.to_owned(), rule, tests, map });
            }
            place += 1;
        }
    }
    if maps.is_empty() {
        return Err(no_exits());
    }
    let exit_heads = observations.exit_heads.clone();
    Ok(Fitted { maps: AgreementMaps { fitted_to: split.fitted_to(), exit_heads, maps }, reliability })
}

/// The rules by which a measure is mapped, each once.
fn rules_for(measure: &MeasureKind) -> Vec<MapRule> {
    let of_measure = mapped_measures().into_iter().filter(|(_, mapping)| mapping.base == measure);
    let mut rules: Vec<MapRule> = Vec::new();
    for (_, mapping) in of_measure {
        if !rules.contains(&mapping.rule) {
            rules.push(mapping.rule);
        }
    }
    rules
}

/// The layer that a set of tests was made for.
pub fn layer_of(tests: Exits) -> usize {
    tests.layers().last().unwrap_or(0)
}
