use super::{Confidence, Measure, MeasureKind, StepMeasure};
use crate::backbone::Backbone;
use crate::error::{DecodeError, PolicyError};
use crate::layer::Layer;

/// The trained [`ExitClassifier`] that came with the backbone: `sigmoid(w h + b)`.
pub(super) static CLASSIFIER: MeasureKind = MeasureKind {
    name: "classifier",
    about: "the exit classifier that was trained with the model",
    load,
    flops: |shape, exit_layer| {
        shape.flops.head + shape.num_tests(exit_layer) as f64 * 2.0 * shape.d_model as f64
    },
};

/// The early-exit classifier of the paper (section 3.5), a logistic regression on the state for all layers.
#[derive(Debug, Clone, PartialEq)]
pub struct ExitClassifier {
    /// One weight per element of the state, `d_model` in all.
    pub weight: Vec<f32>,
    /// The intercept.
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
        sigmoid(dot(&self.weight, state) + f64::from(self.bias)) as f32
    }
}

impl Measure for ExitClassifier {
    fn begin_step(&self) -> Box<dyn StepMeasure + '_> {
        Box::new(self)
    }
}

impl StepMeasure for &ExitClassifier {
    fn confidence(&mut self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError> {
        let states = layer.hidden()?;
        Ok(states.rows().map(|state| Confidence { value: self.probability(state), token: None }).collect())
    }
}

/// In several sums, since a single one makes every addition wait for the one before.
pub(super) fn dot(left: &[f32], right: &[f32]) -> f64 {
    const SUMS: usize = 8;
    let product = |(&a, &b): (&f32, &f32)| f64::from(a) * f64::from(b);
    let (left, right) = (left.chunks_exact(SUMS), right.chunks_exact(SUMS));
    let rest: f64 = left.remainder().iter().zip(right.remainder()).map(product).sum();
    let mut sums = [0.0; SUMS];
    for (left, right) in left.zip(right) {
        for (sum, pair) in sums.iter_mut().zip(left.iter().zip(right)) {
            *sum += product(pair);
        }
    }
    sums.iter().sum::<f64>() + rest
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
