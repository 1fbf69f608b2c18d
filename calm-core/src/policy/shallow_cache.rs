use super::{Decision, Parameter, Parameters, Policy, PolicyKind, StepPolicy};
use crate::backbone::{Backbone, Token};
use crate::error::{DecodeError, PolicyError};
use crate::layer::Layer;
use crate::matrix::Matrix;

pub(super) static SHALLOW_CACHE: PolicyKind = PolicyKind {
    name: "shallow-cache",
    about: "the last layer's tokens, but later ones see of them what so many layers made; computes all",
    parameters: &[Parameter::Layers],
    make,
    is_full: |parameters, num_layers| parameters.layers == Some(num_layers),
    head_flops: |_, shape, _| shape.flops.head,
    defers: false,
};

/// Every token is the last layer's, while the keys and values of the layers above `layers` are made from the
/// state after these, as if it had left there (paper section 3.3.1, with the first layer). This shows what
/// missing states do, apart from wrong tokens. All layers run; recorded are exits after `layers`.
#[derive(Debug, Clone, Copy)]
struct ShallowCache {
    layers: usize,
}

fn make(parameters: &Parameters, backbone: &dyn Backbone) -> Result<Box<dyn Policy>, PolicyError> {
    let (layers, available) = (parameters.layers.unwrap_or(0), backbone.shape().num_layers);
    match (1..=available).contains(&layers) {
        true => Ok(Box::new(ShallowCache { layers })),
        false => Err(PolicyError::Form(format!(
            "a shallow cache must be made of 1 to the decoder's {available} layers, not {layers}"
        ))),
    }
}

impl Policy for ShallowCache {
    /// The tokens are the last layer's best ones.
    fn can_sample(&self) -> bool {
        false
    }

    fn begin_step(&self, _: usize) -> Box<dyn StepPolicy + '_> {
        Box::new(Step { layers: self.layers, states: Matrix::default() })
    }
}

struct Step {
    layers: usize,
    /// States after this number of layers, once they have run.
    states: Matrix,
}

impl StepPolicy for Step {
    fn decide(&mut self, layer: &mut Layer<'_>, decisions: &mut [Decision]) -> Result<(), DecodeError> {
        if layer.number() < self.layers || self.layers == layer.shape().num_layers {
            return Ok(());
        }
        if layer.number() == self.layers {
            self.states = layer.hidden()?;
        }
        if layer.is_last() {
            let tokens: Vec<Token> = layer.top2()?.into_iter().map(|top2| top2.token).collect();
            for (decision, token) in decisions.iter_mut().zip(tokens) {
                (decision.exit_layer, decision.token) = (Some(self.layers), Some(token));
            }
            layer.set_hidden(layer.entries(), &self.states)?;
        }
        Ok(())
    }
}
