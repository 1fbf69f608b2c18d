//! The built-in measures and what they are made of.

use calm_core::{
    BackboneShape, Confidence, Cost, DecoderSession, EngineError, Entry, ExitClassifier, Exits, Layer,
    MEASURES, Matrix, Measure, Token, Top2, best_tokens,
};
use proptest::prelude::*;

use crate::toy::Toy;

#[test]
fn margin_is_between_the_two_best_probabilities() {
    let check = |logits: &[f32], token: u32, margin: f32| {
        let top2 = Top2::from_logits(logits);
        assert_eq!(top2.token, token, "{logits:?}");
        assert!((top2.margin - margin).abs() < 1e-6, "{logits:?}: {} instead of {margin}", top2.margin);
    };
    let ln = f32::ln;
    check(&[ln(0.1), ln(0.6), ln(0.3)], 1, 0.3);
    check(&[ln(0.6), ln(0.1), ln(0.3)], 0, 0.3);
    check(&[ln(0.1), ln(0.3), ln(0.6)], 2, 0.3);
    // Shifted logits mean the same, however large.
    check(&[1e4, 1e4 + 1.0], 1, (1.0 - 1.0 / 1.0f32.exp()) / (1.0 + 1.0 / 1.0f32.exp()));
    check(&[-3e38, 3e38, 0.0], 1, 1.0);
    // At a tie the lowest token wins, by nothing.
    check(&[0.5, 2.0, 2.0, 1.0], 1, 0.0);
    check(&[7.0], 0, 1.0);
    check(&[0.0, f32::NEG_INFINITY], 0, 1.0);
}

#[test]
fn margin_of_what_is_no_number_is_never_confident() {
    for logits in [&[f32::NAN, 1.0][..], &[1.0, f32::NAN, 3.0], &[f32::INFINITY, 0.0], &[]] {
        let margin = Top2::from_logits(logits).margin;
        assert!(margin.is_nan(), "{logits:?}: {margin}");
    }
}

/// A session that shows measures the states it was given.
#[derive(Default)]
struct Shown(Matrix);

impl DecoderSession for Shown {
    fn embed(&mut self, _: &[Entry], _: &[Token]) -> Result<(), EngineError> {
        Ok(())
    }

    fn run_layer(&mut self, _: usize, _: &[Entry]) -> Result<(), EngineError> {
        Ok(())
    }

    fn propagate(&mut self, _: usize, _: &[Entry]) -> Result<(), EngineError> {
        Ok(())
    }

    fn hidden(&mut self, _: &[Entry]) -> Result<Matrix, EngineError> {
        Ok(self.0.clone())
    }

    fn set_hidden(&mut self, _: &[Entry], states: &Matrix) -> Result<(), EngineError> {
        self.0.clone_from(states);
        Ok(())
    }

    fn logits(&mut self, _: &[Entry]) -> Result<Matrix, EngineError> {
        panic!("measures of states ask for no logits")
    }

    /// A shared head that shows the states as logits.
    fn logits_of(&mut self, states: &Matrix) -> Result<Matrix, EngineError> {
        Ok(states.clone())
    }

    fn crop(&mut self, _: usize, _: usize) -> Result<(), EngineError> {
        Ok(())
    }
}

/// What a measure says of one row after each layer, given its states after each of them.
pub(crate) fn confidences(measure: &dyn Measure, states: &[&[f32]]) -> Vec<Confidence> {
    let d_model = states[0].len();
    let (flops, bytes) = (Cost::default(), Cost::default());
    let num_layers = states.len() + 1;
    let shape = BackboneShape { num_layers, d_model, vocab_size: 2, eos_tokens: vec![], flops, bytes };
    let (mut session, mut step) = (Shown::default(), measure.begin_step());
    let entries = [Entry { row: 0, position: 0 }];
    let confidence = |(index, state): (usize, &&[f32])| {
        session.set_hidden(&entries, &Matrix { data: state.to_vec(), columns: d_model }).unwrap();
        let mut layer = Layer::new(&mut session, &shape, index + 1, &entries);
        step.confidence(&mut layer).unwrap()[0]
    };
    states.iter().enumerate().map(confidence).collect()
}

#[test]
fn state_saturation_is_the_cosine() {
    let measure = MEASURES.get("state").unwrap().make(&Toy::new(2, 0), Exits::all_below(2)).unwrap();
    let check = |hidden: &[f32], previous: &[f32], expected: f32| {
        let found = confidences(&*measure, &[previous, hidden]);
        // There is no layer before the first, whatever the embedding.
        assert_eq!(found[0].value, 0.0);
        assert!((found[1].value - expected).abs() < 1e-7, "{} instead of {expected}", found[1].value);
    };
    check(&[3.0, 4.0], &[6.0, 8.0], 1.0);
    check(&[3.0, 4.0], &[4.0, 3.0], 0.96);
    check(&[1.0, 0.0], &[0.0, 2.0], 0.0);
    check(&[1.0, 0.0], &[-1.0, 0.0], -1.0);
    check(&[0.0, 0.0], &[1.0, 0.0], 0.0);
    // Squares beyond f32.
    check(&[1e30, 1e30], &[1e30, 1e30], 1.0);
    // Longer than the sums that are formed side by side: 1..=19 against itself reversed, 1330 / 2470.
    let up: Vec<f32> = (1..=19_u8).map(f32::from).collect();
    let down: Vec<f32> = up.iter().rev().copied().collect();
    check(&up, &down, 1330.0 / 2470.0);
}

#[test]
fn classifier_is_a_logistic_regression() {
    let toy = Toy::new(2, 0).with_classifier(Some(vec![1.0, -2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
    let measure = MEASURES.get("classifier").unwrap().make(&toy, Exits::all_below(2)).unwrap();
    let check = |first: [f32; 2], expected: f32| {
        let state = [first[0], first[1], 9.0, 9.0, 9.0, 9.0, 9.0, 9.0];
        let found = confidences(&*measure, &[&state])[0].value;
        assert!((found - expected).abs() < 1e-7, "{found} instead of {expected}");
    };
    check([1.0, 0.5], 0.5);
    check([1.0 + 3.0f32.ln(), 0.5], 0.75);
    check([1e30, 0.0], 1.0);
    check([-1e30, 0.0], 0.0);
}

#[test]
fn the_best_tokens_of_logits() {
    let logits = [0.5, 3.0, -1.0, 3.0, 2.0];
    let check = |count, tokens: &[Token]| assert_eq!(best_tokens(&logits, count), tokens);
    check(1, &[1]);
    check(2, &[1, 3]);
    check(3, &[1, 3, 4]);
    check(9, &[0, 1, 2, 3, 4]);
    let among = Top2::among(&[2, 4], |token| logits[token as usize]);
    assert_eq!(among.token, 4);
    let odds = 3.0_f32.exp();
    assert!((among.margin - (odds - 1.0) / (odds + 1.0)).abs() < 1e-6);
}

#[test]
fn matrices_have_rows() {
    let matrix = Matrix { data: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], columns: 3 };
    assert_eq!(matrix.num_rows(), 2);
    assert_eq!(matrix.row(1), [4.0, 5.0, 6.0]);
    assert_eq!(matrix.rows().collect::<Vec<_>>(), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    assert_eq!(Matrix::default().rows().len(), 0);
}

proptest! {
    #![proptest_config(crate::cases(256))]

    #[test]
    fn confidences_are_in_range(logits in proptest::collection::vec(-50.0..50.0_f32, 1..30)) {
        let top2 = Top2::from_logits(&logits);
        prop_assert!((0.0..=1.0).contains(&top2.margin));
        let best = logits.iter().copied().fold(f32::MIN, f32::max);
        prop_assert_eq!(logits.iter().position(|&logit| logit == best), Some(top2.token as usize));

        let classifier = ExitClassifier { weight: logits.clone(), bias: 1.0 };
        let confidence = classifier.probability(&logits);
        prop_assert!((0.0..=1.0).contains(&confidence));
    }
}
