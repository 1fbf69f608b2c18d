//! Logits of a text by one model, and how far they are from those of another.

use calm_checkpoint::Model;
use calm_core::{Entry, Token};

/// Computes the logits of a text at full depth, a position at a time.
pub(crate) fn logits(model: &dyn Model, source: &[Token], text: &[Token]) -> Vec<f32> {
    let prompt = model.read(&[source]).unwrap();
    let mut session = prompt.start(text.len()).unwrap();
    let mut all = Vec::new();
    for (position, &token) in text.iter().enumerate() {
        let entry = [Entry { row: 0, position }];
        session.embed(&entry, &[token]).unwrap();
        for layer in 1..=model.shape().num_layers {
            session.run_layer(layer, &entry).unwrap();
        }
        all.extend(session.logits(&entry).unwrap().data);
    }
    all
}

/// Computes the root of the mean square of what differs, as a share of that of the logits.
pub(crate) fn distance(found: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let differences: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    (differences / expected.iter().copied().map(square).sum::<f64>()).sqrt()
}
