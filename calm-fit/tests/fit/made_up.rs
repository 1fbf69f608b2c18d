//! Observations of a model that does not exist.

use calm_core::{Exits, Mapping, MeasureKind, Memory, Token};
use calm_fit::observe::{Reading, Stream, mapped_measures};
use calm_fit::{Observations, agreement};

pub(crate) const NUM_LAYERS: usize = 4;

/// The measure that the table's entry `name` maps.
pub(crate) fn base_of(name: &str) -> &'static MeasureKind {
    mapping_of(name).base
}

/// What the table's entry `name` maps, and by which rule.
pub(crate) fn mapping_of(name: &str) -> Mapping {
    mapped_measures().into_iter().find(|(kind, _)| kind.name == name).unwrap().1
}

/// Sources that are all different.
pub(crate) fn sources(count: usize) -> Vec<Vec<Token>> {
    (0..count as Token).map(|index| vec![index, 1]).collect()
}

/// The margin of a decoder of four layers: at layer `l` a confidence of `c / 10` is right for `c` of 10
/// tokens in layer 1, and more often above. Each example has 100 tokens.
pub(crate) fn observations(examples: usize) -> Observations {
    let exits = Exits::all_below(NUM_LAYERS);
    let token = |index: usize| {
        let (confidence, number) = (index / 10, index % 10);
        let reading = |layer: usize| Reading {
            confidence: confidence as f32 / 10.0,
            agrees: number < confidence + layer - 1,
        };
        exits.layers().map(reading).collect::<Vec<_>>()
    };
    let example = (0..100).map(token).collect::<Vec<_>>();
    Observations {
        num_layers: NUM_LAYERS,
        exit_heads: None,
        streams: vec![Stream { measure: base_of("agreement"), memory: Memory::Nothing, exits }],
        examples: vec![example; examples],
    }
}

/// The maps fitted to these.
pub(crate) fn fitted(observations: &Observations) -> agreement::Fitted {
    calm_fit::fit(observations, &sources(observations.examples.len())).unwrap()
}
