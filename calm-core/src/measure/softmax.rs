use super::{Confidence, Measure, MeasureKind, Memory, StepMeasure};
use crate::error::DecodeError;
use crate::layer::Layer;
use crate::matrix::Top2;

/// Softmax response: probability of the best token minus that of the second best (paper section 3.5). The
/// paper's released code has the largest probability as default; its text has the difference.
pub(crate) static SOFTMAX: MeasureKind = MeasureKind {
    name: "softmax",
    about: "probability of the best token minus that of the second best",
    load: |_| Ok(Box::new(Softmax)),
    // The product with the head that tests an exit gives the token too.
    flops: |shape, tests| tests.heads() * shape.flops.head,
    maps: None,
};

struct Softmax;

impl Measure for Softmax {
    fn begin_step(&self) -> Box<dyn StepMeasure + '_> {
        Box::new(Softmax)
    }

    fn memory(&self) -> Memory {
        Memory::Nothing
    }
}

impl StepMeasure for Softmax {
    fn confidence(&mut self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError> {
        Ok(layer.top2()?.into_iter().map(Confidence::from).collect())
    }
}

impl From<Top2> for Confidence {
    fn from(top2: Top2) -> Self {
        Self { value: top2.margin, token: Some(top2.token) }
    }
}
