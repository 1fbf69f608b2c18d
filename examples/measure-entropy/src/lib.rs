//! A confidence measure outside the crates that decode: the normalised entropy of the prediction.

use calm_core::{Confidence, DecodeError, Layer, Measure, MeasureKind, StepMeasure, Top2};

/// The measure's entry in the table of measures.
pub static ENTROPY: MeasureKind = MeasureKind {
    name: "entropy",
    about: "1 minus the entropy of the prediction, as a share of the largest there is",
    load: |_| Ok(Box::new(Entropy)),
    // A product with the head after each layer, which also gives the token.
    flops: |shape, tests| tests.heads() * shape.flops.head,
    maps: None,
};

struct Entropy;

impl Measure for Entropy {
    fn begin_step(&self) -> Box<dyn StepMeasure + '_> {
        Box::new(Entropy)
    }
}

impl StepMeasure for Entropy {
    fn confidence(&mut self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError> {
        let logits = layer.logits()?;
        let confidence = |logits: &[f32]| Confidence {
            value: 1.0 - normalised_entropy(logits),
            token: Some(Top2::from_logits(logits).token),
        };
        Ok(logits.rows().map(confidence).collect())
    }
}

/// Entropy of the softmax of some logits divided by that of as many equal ones: from 0, no doubt, to 1.
pub fn normalised_entropy(logits: &[f32]) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighted) = (0.0_f64, 0.0_f64);
    for logit in logits {
        // H = ln(sum of e^x) - (sum of x e^x) / (sum of e^x), with x relative to the largest logit.
        let x = f64::from(logit - largest);
        sum += x.exp();
        weighted += if x.is_finite() { x * x.exp() } else { 0.0 };
    }
    ((sum.ln() - weighted / sum) / (logits.len() as f64).ln()) as f32
}
