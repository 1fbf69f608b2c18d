use super::{Confidence, Measure, MeasureKind, Memory, StepMeasure};
use crate::backbone::Backbone;
use crate::error::{DecodeError, PolicyError};
use crate::layer::Layer;
use crate::matrix::dot;

/// The trained [`ExitClassifier`] that came with the backbone: `sigmoid(w h + b)`.
pub(super) static CLASSIFIER: MeasureKind = MeasureKind {
    name: "classifier",
    about: "the exit classifier that was trained with the model",
    load,
    flops: |shape, tests| shape.flops.head + tests.count as f64 * 2.0 * shape.d_model as f64,
    maps: None,
};

/// The early-exit classifier of the paper (section 3.5), a logistic regression on the state for all layers.
#[derive(Debug, Clone, PartialEq)]
pub struct ExitClassifier {
    /// One weight for each number of a state: `[d_model]`.
    pub weight: Vec<f32>,
    /// The intercept, in logarithms of odds.
    pub bias: f32,
}

fn load(backbone: &dyn Backbone) -> Result<Box<dyn Measure>, PolicyError> {
    let classifier = backbone.exit_classifier().ok_or(PolicyError::NoClassifier)?;
    let (width, d_model) = (classifier.weight.len(), backbone.shape().d_model);
    if width != d_model {
        return Err(PolicyError::ClassifierWidth { width, d_model });
    }
    Ok(Box::new(classifier.clone()))
}

impl ExitClassifier {
    /// Probability that a token may leave with this state `[d_model]`.
    pub fn probability(&self, state: &[f32]) -> f32 {
        self.probability_of(dot(&self.weight, state))
    }

    /// The same, from the product of weight and state.
    fn probability_of(&self, product: f64) -> f32 {
        sigmoid(product + f64::from(self.bias)) as f32
    }
}

impl Measure for ExitClassifier {
    fn begin_step(&self) -> Box<dyn StepMeasure + '_> {
        Box::new(self)
    }

    fn memory(&self) -> Memory {
        Memory::Nothing
    }
}

impl StepMeasure for &ExitClassifier {
    fn confidence(&mut self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError> {
        let products = layer.dot_hidden(&self.weight)?;
        let confidence = |product| Confidence { value: self.probability_of(product), token: None };
        Ok(products.into_iter().map(confidence).collect())
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
