use super::{Confidence, Measure, MeasureKind, StepMeasure};
use crate::backbone::Entry;
use crate::error::DecodeError;
use crate::layer::Layer;
use crate::matrix::{Matrix, dot};

/// Hidden-state saturation: the cosine between the states after this layer and the one before (paper
/// section 3.5), of those that are tested. The first one has none before it and a confidence of 0. Negative
/// cosines are not clamped: they are below every threshold, 0 included, which a confidence of 0 reaches.
pub(super) static STATE: MeasureKind = MeasureKind {
    name: "state",
    about: "cosine between the states after this layer and the one before",
    load: |_| Ok(Box::new(State)),
    // A test takes three dot products; Elbayad et al. have no such test.
    flops: |shape, tests| shape.flops.head + tests.count as f64 * 6.0 * shape.d_model as f64,
    maps: None,
};

struct State;

impl Measure for State {
    fn begin_step(&self) -> Box<dyn StepMeasure + '_> {
        Box::new(Step { entries: Vec::new(), states: Matrix::default() })
    }
}

/// The states after the layer before.
struct Step {
    entries: Vec<Entry>,
    states: Matrix,
}

impl StepMeasure for Step {
    fn confidence(&mut self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError> {
        let states = layer.hidden()?;
        let confidence = |(entry, state): (&Entry, &[f32])| {
            let before = self.entries.binary_search(entry).ok();
            let value = before.map_or(0.0, |index| cosine(state, self.states.row(index)));
            Confidence { value, token: None }
        };
        let found = layer.entries().iter().zip(states.rows()).map(confidence).collect();
        (self.entries, self.states) = (layer.entries().to_vec(), states);
        Ok(found)
    }
}

fn cosine(left: &[f32], right: &[f32]) -> f32 {
    let norms = (dot(left, left) * dot(right, right)).sqrt();
    if norms > 0.0 { (dot(left, right) / norms) as f32 } else { 0.0 }
}
