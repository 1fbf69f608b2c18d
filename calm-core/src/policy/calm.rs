use super::full::NoTests;
use super::{Decision, Parameter, Parameters, Policy, PolicyKind, StepPolicy};
use crate::backbone::{Backbone, BackboneShape};
use crate::cost::Tests;
use crate::error::{DecodeError, PolicyError};
use crate::exits::Exits;
use crate::layer::{Layer, expect_rows};
use crate::measure::{Measure, StepMeasure};
use crate::threshold::Threshold;

pub(super) static CALM: PolicyKind = PolicyKind {
    name: "calm",
    about: "the first layer whose confidence reaches the threshold",
    parameters: &[Parameter::Measure, Parameter::Threshold, Parameter::Exits],
    make,
    is_full: |parameters, _| never_exits(parameters),
    head_flops,
    defers: false,
};

/// Every token leaves after the first tested layer whose confidence reaches the threshold (paper Eq. 4).
pub struct Calm {
    /// Any confidence measure.
    pub measure: Box<dyn Measure>,
    /// When it is confident enough.
    pub threshold: Threshold,
    /// The layers after which it is asked.
    pub exits: Exits,
}

fn make(parameters: &Parameters, backbone: &dyn Backbone) -> Result<Box<dyn Policy>, PolicyError> {
    let (Some(measure), Some(threshold)) = (parameters.measure, parameters.threshold) else {
        return Err(PolicyError::Form("the policy calm needs a measure and a threshold".to_owned()));
    };
    let num_layers = backbone.shape().num_layers;
    let exits = exits(parameters, num_layers);
    Ok(Box::new(Calm { measure: measure.make(backbone, exits)?, threshold, exits }))
}

/// The layers that are tested: all but the last, unless some are named.
fn exits(parameters: &Parameters, num_layers: usize) -> Exits {
    parameters.exits.unwrap_or(Exits::all_below(num_layers))
}

fn never_exits(parameters: &Parameters) -> bool {
    parameters.threshold.is_some_and(|threshold| threshold.never_exits())
}

fn head_flops(parameters: &Parameters, shape: &BackboneShape, exit_layer: usize) -> f64 {
    match parameters.measure {
        Some(measure) if !never_exits(parameters) => {
            let exits = exits(parameters, shape.num_layers);
            (measure.flops)(shape, Tests::new(exits, shape.num_layers, exit_layer))
        }
        _ => shape.flops.head,
    }
}

impl Policy for Calm {
    fn begin_step(&self, max_tokens: usize) -> Box<dyn StepPolicy + '_> {
        if self.threshold.never_exits() {
            return Box::new(NoTests);
        }
        let rule = CalmStep::new(&*self.measure, self.threshold, max_tokens);
        Box::new(Step { rule, exits: self.exits })
    }
}

struct Step<'a> {
    rule: CalmStep<'a>,
    exits: Exits,
}

impl StepPolicy for Step<'_> {
    fn decide(&mut self, layer: &mut Layer<'_>, decisions: &mut [Decision]) -> Result<(), DecodeError> {
        // After the last layer there is nothing to decide, unless it has a head that knows a part of the
        // vocabulary. The confidence of the layer before is kept.
        if !self.exits.contains(layer.number()) {
            return Ok(());
        }
        self.rule.test(layer, decisions)
    }
}

/// The rule of the paper's Eq. 4 during one step: a token leaves if its confidence reaches the threshold.
pub(super) struct CalmStep<'a> {
    measure: Box<dyn StepMeasure + 'a>,
    threshold: Threshold,
    max_tokens: usize,
}

impl<'a> CalmStep<'a> {
    pub(super) fn new(measure: &'a dyn Measure, threshold: Threshold, max_tokens: usize) -> Self {
        Self { measure: measure.begin_step(), threshold, max_tokens }
    }

    /// Tests all entries of a layer.
    pub(super) fn test(
        &mut self,
        layer: &mut Layer<'_>,
        decisions: &mut [Decision],
    ) -> Result<(), DecodeError> {
        let found = self.measure.confidence(layer)?;
        expect_rows("the measure", found.len(), layer.entries())?;
        for ((entry, found), decision) in layer.entries().iter().zip(found).zip(decisions) {
            decision.confidence = Some(found.value);
            if f64::from(found.value) >= self.threshold.at(entry.position, self.max_tokens) {
                (decision.exit_layer, decision.token) = (Some(layer.number()), found.token);
            }
        }
        Ok(())
    }

    /// Shows the measure a layer that nobody leaves at.
    pub(super) fn show(&mut self, layer: &mut Layer<'_>) -> Result<(), DecodeError> {
        self.measure.confidence(layer).map(drop)
    }
}
