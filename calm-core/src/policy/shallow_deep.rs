use super::calm::CalmStep;
use super::full::NoTests;
use super::{Decision, DeepTokens, Deferral, Parameter, Parameters, Policy, PolicyKind, Skipped, StepPolicy};
use crate::backbone::{Backbone, BackboneShape};
use crate::cost::Tests;
use crate::error::{DecodeError, PolicyError};
use crate::exits::Exits;
use crate::layer::Layer;
use crate::measure::{Measure, Memory};
use crate::threshold::Threshold;

pub(super) static SHALLOW_DEEP: PolicyKind = PolicyKind {
    name: "shallow-deep",
    about: "so many layers where they are confident, else all, which then run for tokens that waited too",
    parameters: &[Parameter::Layers, Parameter::MeasureOrSoftmax, Parameter::Threshold, Parameter::Cap],
    make,
    is_full: |parameters, _| never_exits(parameters),
    head_flops,
    defers: true,
};

/// FREE (Bae et al., Fast and Robust Early-Exiting, EMNLP 2023): a token leaves after the shallow layers if
/// they are confident. The deep layers run when a token is not, for all that have left since, so that their
/// K/V are exact. Tokens that were given are not revised.
///
/// Confident is what reaches the threshold, as everywhere here; the released code wants more than it.
struct ShallowDeep {
    measure: Box<dyn Measure>,
    threshold: Threshold,
    layers: usize,
    cap: Option<usize>,
}

fn make(parameters: &Parameters, backbone: &dyn Backbone) -> Result<Box<dyn Policy>, PolicyError> {
    let (Some(layers), Some(measure), Some(threshold)) =
        (parameters.layers, parameters.measure, parameters.threshold)
    else {
        return Err(PolicyError::Form("the policy shallow-deep needs layers and a threshold".to_owned()));
    };
    let exit = Exits::new(&[layers])?;
    exit.check(backbone.shape().num_layers)?;
    let measure = measure.make(backbone, exit)?;
    Ok(Box::new(ShallowDeep { measure, threshold, layers, cap: parameters.cap }))
}

fn never_exits(parameters: &Parameters) -> bool {
    parameters.threshold.is_some_and(|threshold| threshold.never_exits())
}

/// One test for every token, and the head for those that stay.
fn head_flops(parameters: &Parameters, shape: &BackboneShape, exit_layer: usize) -> f64 {
    match parameters.measure {
        Some(measure) if !never_exits(parameters) => {
            (measure.flops)(shape, Tests { count: 1, left_early: exit_layer < shape.num_layers })
        }
        _ => shape.flops.head,
    }
}

impl Policy for ShallowDeep {
    fn skipped(&self) -> Skipped {
        Skipped::Deferred(Deferral { cap: self.cap, deep_tokens: DeepTokens::Unknown })
    }

    fn begin_step(&self, max_tokens: usize) -> Box<dyn StepPolicy + '_> {
        if self.threshold.never_exits() {
            return Box::new(NoTests);
        }
        let Self { measure, threshold, layers, .. } = self;
        // A measure that compares with an earlier layer is shown the one before.
        let is_shown = measure.memory() == Memory::AllTests && *layers > 1;
        let shown = is_shown.then(|| layers - 1);
        Box::new(Step { rule: CalmStep::new(&**measure, *threshold, max_tokens), layers: *layers, shown })
    }
}

struct Step<'a> {
    rule: CalmStep<'a>,
    layers: usize,
    /// A layer that the measure sees while nobody leaves there.
    shown: Option<usize>,
}

impl StepPolicy for Step<'_> {
    fn decide(&mut self, layer: &mut Layer<'_>, decisions: &mut [Decision]) -> Result<(), DecodeError> {
        if layer.number() == self.layers {
            self.rule.test(layer, decisions)?;
        } else if self.shown == Some(layer.number()) {
            self.rule.show(layer)?;
        }
        Ok(())
    }
}
