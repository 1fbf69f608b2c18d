use std::collections::BTreeMap;

use super::{Confidence, Measure, MeasureKind, Memory, StepMeasure};
use crate::backbone::{BackboneShape, Entry, Token};
use crate::cost::Tests;
use crate::error::DecodeError;
use crate::layer::Layer;

/// Tokens that compete where the vocabulary is pruned.
pub const PRUNED_TOKENS: usize = 64;

/// Softmax response over a pruned vocabulary: only the [`PRUNED_TOKENS`] tokens that are best at the first
/// test of a token, after layer 1 unless the policy says otherwise, compete in the softmax of all layers, and
/// for the output of a token that leaves early (dynamic vocabulary pruning, Vincenti et al. 2024). One
/// product with the whole vocabulary a token instead of one a layer.
pub(super) static PRUNED: MeasureKind = MeasureKind {
    name: "pruned",
    about: "softmax among the 64 tokens that are best after the first layer",
    load: |_| Ok(Box::new(Pruned)),
    flops,
    maps: None,
};

pub(super) fn flops(shape: &BackboneShape, tests: Tests) -> f64 {
    // The first test chooses the vocabulary. A token that leaves early is one of the candidates.
    let heads = usize::from(tests.count > 0) + usize::from(!tests.left_early);
    let candidates = 2.0 * PRUNED_TOKENS as f64 * shape.d_model as f64;
    heads as f64 * shape.flops.head + tests.count as f64 * candidates
}

struct Pruned;

impl Measure for Pruned {
    fn begin_step(&self) -> Box<dyn StepMeasure + '_> {
        Box::new(Step::default())
    }

    fn memory(&self) -> Memory {
        Memory::FirstTest
    }
}

#[derive(Default)]
struct Step {
    candidates: Candidates,
}

impl StepMeasure for Step {
    fn confidence(&mut self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError> {
        if self.candidates.are_unknown() {
            let best = layer.best_tokens(PRUNED_TOKENS)?;
            self.candidates.choose(layer, best);
        }
        self.candidates.confidence(layer)
    }
}

/// The tokens that compete from the first test of a step on, of each entry that the step began with.
#[derive(Default)]
pub(super) struct Candidates(BTreeMap<Entry, Vec<Token>>);

impl Candidates {
    /// Whether the first test is still to come.
    pub(super) fn are_unknown(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the tokens of each of the layer's entries.
    pub(super) fn choose(&mut self, layer: &Layer<'_>, tokens: impl IntoIterator<Item = Vec<Token>>) {
        self.0 = layer.entries().iter().copied().zip(tokens).collect();
    }

    /// Best tokens and margins of the layer's entries, each among its own.
    pub(super) fn confidence(&self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError> {
        let candidates: Vec<&[Token]> =
            layer.entries().iter().map(|entry| self.0[entry].as_slice()).collect();
        Ok(layer.top2_among(&candidates)?.into_iter().map(Confidence::from).collect())
    }
}
