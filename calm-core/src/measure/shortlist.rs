use std::collections::BTreeMap;

use super::{Confidence, Measure, MeasureKind, Memory, PRUNED_TOKENS, StepMeasure};
use crate::backbone::{Entry, Token};
use crate::error::DecodeError;
use crate::layer::Layer;

/// The margin in the whole vocabulary at the first test of a token, and among the [`PRUNED_TOKENS`] tokens
/// that were best there at all later ones. One product with the whole vocabulary a token that leaves early.
/// Margins of the first test and of later ones are not comparable, so this is no measure of the table: it is
/// what [`AGREEMENT_PRUNED`](super::AGREEMENT_PRUNED) maps.
pub(super) static SHORTLIST: MeasureKind = MeasureKind {
    name: "shortlist",
    about: "the margin at the first test, and among the 64 best tokens of that at later ones",
    load: |_| Ok(Box::new(Shortlist)),
    flops: super::pruned::flops,
    maps: None,
};

struct Shortlist;

impl Measure for Shortlist {
    fn begin_step(&self) -> Box<dyn StepMeasure + '_> {
        Box::new(Step::default())
    }

    fn memory(&self) -> Memory {
        Memory::FirstTest
    }
}

#[derive(Default)]
struct Step {
    /// The tokens that compete, of each entry that the step began with; empty before the first test.
    candidates: BTreeMap<Entry, Vec<Token>>,
}

impl StepMeasure for Step {
    fn confidence(&mut self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError> {
        if self.candidates.is_empty() {
            let shortlists = layer.shortlists(PRUNED_TOKENS)?;
            let mut found = Vec::with_capacity(shortlists.len());
            for (entry, shortlist) in layer.entries().iter().zip(shortlists) {
                found.push(Confidence::from(shortlist.top2));
                self.candidates.insert(*entry, shortlist.tokens);
            }
            return Ok(found);
        }
        let candidates: Vec<&[Token]> =
            layer.entries().iter().map(|entry| self.candidates[entry].as_slice()).collect();
        Ok(layer.top2_among(&candidates)?.into_iter().map(Confidence::from).collect())
    }
}
