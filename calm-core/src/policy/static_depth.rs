use super::full::NoTests;
use super::{Parameter, Parameters, Policy, PolicyKind, StepPolicy};
use crate::backbone::Backbone;
use crate::error::PolicyError;

pub(super) static STATIC: PolicyKind = PolicyKind {
    name: "static",
    about: "the same number of layers for every token",
    parameters: &[Parameter::Layers],
    make,
    is_full: |parameters, num_layers| parameters.layers == Some(num_layers),
    head_flops: |_, shape, _| shape.flops.head,
    defers: false,
};

/// Every token leaves after the same layer.
#[derive(Debug, Clone, Copy)]
pub struct StaticDepth {
    /// Layers that run, from 1 to all.
    pub layers: usize,
}

fn make(parameters: &Parameters, backbone: &dyn Backbone) -> Result<Box<dyn Policy>, PolicyError> {
    let (layers, available) = (parameters.layers.unwrap_or(0), backbone.shape().num_layers);
    match (1..=available).contains(&layers) {
        true => Ok(Box::new(StaticDepth { layers })),
        false => Err(PolicyError::StaticLayers { layers, available }),
    }
}

impl Policy for StaticDepth {
    fn depth(&self, _: usize) -> usize {
        self.layers
    }

    fn begin_step(&self, _: usize) -> Box<dyn StepPolicy + '_> {
        Box::new(NoTests)
    }
}
