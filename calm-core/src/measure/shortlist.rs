use super::pruned::{Candidates, flops};
use super::{Confidence, Measure, MeasureKind, Memory, PRUNED_TOKENS, StepMeasure};
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
    flops,
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
    candidates: Candidates,
}

impl StepMeasure for Step {
    fn confidence(&mut self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError> {
        if !self.candidates.are_unknown() {
            return self.candidates.confidence(layer);
        }
        let shortlists = layer.shortlists(PRUNED_TOKENS)?;
        let found = shortlists.iter().map(|shortlist| Confidence::from(shortlist.top2)).collect();
        self.candidates.choose(layer, shortlists.into_iter().map(|shortlist| shortlist.tokens));
        Ok(found)
    }
}
