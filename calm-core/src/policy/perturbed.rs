use super::{Decision, Parameter, Parameters, Policy, PolicyKind, StepPolicy};
use crate::backbone::Token;
use crate::error::DecodeError;
use crate::layer::Layer;
use crate::matrix::{Top2, best_tokens};

pub(super) static PERTURBED_SAMPLING: PolicyKind = PolicyKind {
    name: "perturbed-sampling",
    about: "all layers for every token, with the tenth best token at one position",
    parameters: &[Parameter::Position],
    make: |parameters, _| Ok(Box::new(Perturbed::new(parameters, Substitute::TenthBest))),
    is_full: |_, _| false,
    // At the position the substitute takes a product with the head in place of the last layer's best token.
    head_flops: |_, shape, _| shape.flops.head,
    defers: false,
};

pub(super) static PERTURBED_LAYER: PolicyKind = PolicyKind {
    name: "perturbed-layer",
    about: "all layers for every token, with the first layer's best token at one position",
    make: |parameters, _| Ok(Box::new(Perturbed::new(parameters, Substitute::FirstLayer))),
    ..PERTURBED_SAMPLING
};

/// The full model with one token of each output replaced, which shows how one local error changes what comes
/// after it (paper section 3.3.2 and figure 2a).
///
/// All layers run for every token, so that keys and values are exact; the substitute is the next input. An
/// output that ends before the position is the full model's. Where the substitute is an end-of-sequence token
/// the output ends, as in any decoding, and where it replaces one the output goes on.
#[derive(Debug, Clone, Copy)]
struct Perturbed {
    position: usize,
    substitute: Substitute,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Substitute {
    /// The last layer's token of this rank, or its worst of a smaller vocabulary: the sampling-based error of
    /// the paper.
    TenthBest,
    /// What an exit after the first layer would give: the layer-based error, which may be none.
    FirstLayer,
}

impl Perturbed {
    fn new(parameters: &Parameters, substitute: Substitute) -> Self {
        Self { position: parameters.position.unwrap_or(0), substitute }
    }
}

impl Policy for Perturbed {
    /// Another token than the best is an error only where the best ones are the output.
    fn can_sample(&self) -> bool {
        false
    }

    fn begin_step(&self, _: usize) -> Box<dyn StepPolicy + '_> {
        Box::new(Step { perturbed: *self, first: Vec::new() })
    }
}

struct Step {
    perturbed: Perturbed,
    /// The first layer's tokens.
    first: Vec<Token>,
}

impl StepPolicy for Step {
    fn decide(&mut self, layer: &mut Layer<'_>, decisions: &mut [Decision]) -> Result<(), DecodeError> {
        let Perturbed { position, substitute } = self.perturbed;
        if layer.entries().iter().all(|entry| entry.position != position) {
            return Ok(());
        }
        if layer.number() == 1 && substitute == Substitute::FirstLayer {
            self.first = layer.top2()?.into_iter().map(|top2| top2.token).collect();
        }
        if !layer.is_last() {
            return Ok(());
        }
        let tokens = match substitute {
            Substitute::TenthBest => tenth_best(layer)?,
            // Nobody has left since, so that the entries are the same.
            Substitute::FirstLayer => std::mem::take(&mut self.first),
        };
        for ((entry, token), decision) in layer.entries().iter().zip(tokens).zip(decisions) {
            if entry.position == position {
                (decision.exit_layer, decision.token) = (Some(layer.number()), Some(token));
            }
        }
        Ok(())
    }
}

/// The token of each entry with nine before it, where of equal logits the lower token comes first.
fn tenth_best(layer: &mut Layer<'_>) -> Result<Vec<Token>, DecodeError> {
    let logits = layer.logits()?;
    let best: Vec<Top2> = logits.rows().map(Top2::from_logits).collect();
    layer.check(best.iter())?;
    let last_of_ten = |logits: &[f32]| {
        let ten = best_tokens(logits, 10).into_iter();
        let before =
            |a: &Token, b: &Token| logits[*b as usize].total_cmp(&logits[*a as usize]).then_with(|| a.cmp(b));
        ten.max_by(before).unwrap_or(0)
    };
    Ok(logits.rows().map(last_of_ten).collect())
}
