use super::{Confidence, Measure, MeasureKind, Memory, StepMeasure};
use crate::error::DecodeError;
use crate::layer::Layer;

/// The softmax response as the engine estimates it cheaply, with the token that the exact head gives. It is
/// no measure of the table, since engines may estimate differently: it is what
/// [`AGREEMENT`](super::AGREEMENT) maps.
pub(super) static MARGIN: MeasureKind = MeasureKind {
    name: "margin",
    about: "about the probability of the best token minus that of the second best",
    load: |_| Ok(Box::new(Margin)),
    flops: |shape, tests| tests.heads() * shape.flops.head,
    maps: None,
};

struct Margin;

impl Measure for Margin {
    fn begin_step(&self) -> Box<dyn StepMeasure + '_> {
        Box::new(Margin)
    }

    fn memory(&self) -> Memory {
        Memory::Nothing
    }
}

impl StepMeasure for Margin {
    fn confidence(&mut self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError> {
        Ok(layer.estimated_top2()?.into_iter().map(Confidence::from).collect())
    }
}
