use std::collections::BTreeMap;

use super::{Decision, Parameter, Parameters, Policy, PolicyKind, StepPolicy};
use crate::backbone::{BackboneShape, Entry, Token};
use crate::error::DecodeError;
use crate::layer::Layer;

pub(super) static PATIENCE: PolicyKind = PolicyKind {
    name: "patience",
    about: "the first layer that agrees with so many before it",
    parameters: &[Parameter::Layers],
    make: |parameters, _| Ok(Box::new(Patience { layers: parameters.layers.unwrap_or(1) })),
    is_full: |parameters, num_layers| parameters.layers >= Some(num_layers.saturating_sub(1)),
    head_flops,
    defers: false,
};

/// Every token leaves after the first layer whose best token is that of `layers` layers before it in a row
/// (Zhou et al., BERT Loses Patience, NeurIPS 2020). There is no threshold to certify.
#[derive(Debug, Clone, Copy)]
struct Patience {
    layers: usize,
}

/// A product with the head after each layer, which also gives the token.
fn head_flops(parameters: &Parameters, shape: &BackboneShape, exit_layer: usize) -> f64 {
    let is_full = (PATIENCE.is_full)(parameters, shape.num_layers);
    if is_full { shape.flops.head } else { exit_layer as f64 * shape.flops.head }
}

impl Policy for Patience {
    fn begin_step(&self, _: usize) -> Box<dyn StepPolicy + '_> {
        Box::new(Step { patience: self.layers, agreeing: BTreeMap::new() })
    }
}

struct Step {
    patience: usize,
    /// Best token of each entry, and how many layers in a row have agreed with the one before them.
    agreeing: BTreeMap<Entry, (Token, usize)>,
}

impl StepPolicy for Step {
    fn decide(&mut self, layer: &mut Layer<'_>, decisions: &mut [Decision]) -> Result<(), DecodeError> {
        if layer.is_last() {
            return Ok(());
        }
        let best = layer.top2()?;
        for ((entry, best), decision) in layer.entries().iter().zip(best).zip(decisions) {
            let agreed = match self.agreeing.get(entry) {
                Some(&(token, agreed)) if token == best.token => agreed + 1,
                _ => 0,
            };
            self.agreeing.insert(*entry, (best.token, agreed));
            if agreed >= self.patience {
                (decision.exit_layer, decision.token) = (Some(layer.number()), Some(best.token));
            }
        }
        Ok(())
    }
}
