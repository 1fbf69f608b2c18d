//! How likely the token of an exit head is the last layer's, as a probability that was trained.

use crate::backbone::BackboneShape;
use crate::matrix::{Top2, dot};

/// The probability that the token of a layer's exit head is that of the last layer: a logistic regression on
/// the state that the head reads, brought to the length of a vector of ones, and on the head's margin. The
/// state tells what the margin cannot, such as that the token is one which the head does not know.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadConfidence {
    /// Weights of the state: `[d_model]`
    pub weight: Vec<f32>,
    /// Weight of [`margin_feature`](HeadConfidence::margin_feature).
    pub margin: f32,
    /// What is added to the weighted sum, in logarithms of odds.
    pub bias: f32,
}

/// Margins nearer to 0 or 1 count as this near.
const NEAREST: f64 = 1e-4;

impl HeadConfidence {
    /// The probability for an entry with this state `[d_model]`, where the head says this.
    pub fn of(&self, state: &[f32], top2: Top2) -> f32 {
        let sum = dot(&self.weight, state) * Self::state_factor(state)
            + f64::from(self.margin) * Self::margin_feature(top2.margin)
            + f64::from(self.bias);
        (1.0 / (1.0 + (-sum).exp())) as f32
    }

    /// What a state `[d_model]` is multiplied with to have a mean square of 1.
    pub fn state_factor(state: &[f32]) -> f64 {
        let mean = dot(state, state) / state.len().max(1) as f64;
        mean.max(f64::MIN_POSITIVE).sqrt().recip()
    }

    /// The logarithm of the odds of a margin, which is from 0 to 1.
    pub fn margin_feature(margin: f32) -> f64 {
        let margin = f64::from(margin).clamp(NEAREST, 1.0 - NEAREST);
        (margin / (1.0 - margin)).ln()
    }

    pub(crate) fn check(&self, shape: &BackboneShape) -> Result<(), String> {
        match self.weight.len() == shape.d_model {
            true => Ok(()),
            false => Err(format!("has {} weights instead of {}", self.weight.len(), shape.d_model)),
        }
    }
}
