//! Exit heads: what they compute, what measures make of them, and where they cannot be used.

use std::collections::BTreeMap;

use calm_core::{
    Backbone, BackboneShape, Confidence, Cost, DecodeOptions, ExitHead, ExitHeads, Exits, FittedTo, HeadKind,
    HeadNorm, MEASURES, Matrix, PolicySpec, Token, decode,
};

use crate::measures::confidences;
use crate::toy::Toy;

fn shape(num_layers: usize, d_model: usize, vocab_size: usize) -> BackboneShape {
    let (flops, bytes) = (Cost { head: 200.0, ..Cost::default() }, Cost { head: 50.0, ..Cost::default() });
    BackboneShape { num_layers, d_model, vocab_size, eos_tokens: vec![1], flops, bytes }
}

fn matrix(rows: usize, columns: usize, number: impl Fn(usize, usize) -> f32) -> Matrix {
    let data = (0..rows).flat_map(|row| (0..columns).map(|column| number(row, column)).collect::<Vec<_>>());
    Matrix { data: data.collect(), columns }
}

fn norm(d_model: usize) -> HeadNorm {
    HeadNorm { weight: vec![1.0; d_model], epsilon: 0.0 }
}

fn identity(size: usize) -> Matrix {
    matrix(size, size, |row, column| f32::from(u8::from(row == column)))
}

/// The three kinds as they begin: as nothing but the shared head, if that is the identity for the last.
fn untrained(kind: HeadKind, d_model: usize) -> ExitHead {
    match kind {
        HeadKind::LowRank => ExitHead::LowRank {
            norm: norm(d_model),
            down: matrix(2, d_model, |row, column| (row + column) as f32),
            up: matrix(d_model, 2, |_, _| 0.0),
        },
        HeadKind::Affine => ExitHead::Affine { weight: identity(d_model), bias: vec![0.0; d_model] },
        HeadKind::Linear => ExitHead::Linear { norm: norm(d_model), vocabulary: identity(d_model) },
    }
}

fn heads(layers: &[usize], head: &ExitHead, shape: &BackboneShape) -> Result<ExitHeads, String> {
    let heads: BTreeMap<usize, ExitHead> = layers.iter().map(|&layer| (layer, head.clone())).collect();
    ExitHeads::new(heads, FittedTo { tokens: 0, sources: Vec::new() }, shape)
}

/// What a measure says of a state after layer 1, where the shared head shows states as logits.
fn confidence(measure: &str, head: &ExitHead, state: &[f32]) -> Confidence {
    let heads = heads(&[1], head, &shape(2, state.len(), state.len())).unwrap();
    let toy = Toy::new(2, 0).with_exit_heads(Some(heads));
    let measure = MEASURES.get(measure).unwrap().make(&toy, Exits::all_below(2)).unwrap();
    confidences(&*measure, &[state])[0]
}

#[test]
fn confidences_are_what_their_names_say() {
    // Probabilities of 0.5, 0.3 and 0.2: H = 0.5 ln 2 + 0.3 ln (1 / 0.3) + 0.2 ln 5 = 1.029653.
    let state = [0.3_f32.ln(), 0.5_f32.ln(), 0.2_f32.ln()].map(|x| x + 3.0);
    let uniform = [1.0_f32; 3];
    for kind in [HeadKind::LowRank, HeadKind::Affine] {
        let head = untrained(kind, 3);
        let check = |measure: &str, state: &[f32], token: Token, expected: f32| {
            let found = confidence(measure, &head, state);
            assert!((found.value - expected).abs() < 1e-6, "{kind} {measure}: {found:?}, not {expected}");
            assert_eq!(found.token, Some(token), "{kind} {measure}");
        };
        check("head_entropy", &state, 1, 1.0 - 1.029_653 / 3.0_f32.ln());
        check("head_gap", &state, 1, 1.0 - 0.3 / 0.5);
        check("head_max", &state, 1, 0.5);
        check("head_margin", &state, 1, 0.2);
        check("head_entropy", &uniform, 0, 0.0);
        check("head_gap", &uniform, 0, 0.0);
        check("head_max", &uniform, 0, 1.0 / 3.0);
        check("head_margin", &uniform, 0, 0.0);
        for measure in ["head_entropy", "head_gap", "head_max", "head_margin"] {
            check(measure, &[0.0, 900.0, -900.0], 1, 1.0);
        }
    }
}

#[test]
fn heads_compute_their_formulas() {
    // norm([3, -4]) = [3, -4] / sqrt(12.5) = [0.848528, -1.131371]; the logits are their softmax's gap.
    let gap = |g: f32| 1.0 - (-g).exp();
    let state = [3.0, -4.0];
    let check = |head: ExitHead, token: Token, expected: f32| {
        let found = confidence("head_gap", &head, &state);
        assert!((found.value - expected).abs() < 1e-6, "{head:?}: {found:?}, not {expected}");
        assert_eq!(found.token, Some(token));
    };
    let weight = vec![2.0, 1.0];
    let norm = HeadNorm { weight, epsilon: 0.0 };
    // normed = [1.697056, -1.131371], down = 1.697056 + 1.131371 = 2.828427, up adds [-1, 1] times that.
    let down = Matrix { data: vec![1.0, -1.0], columns: 2 };
    let up = Matrix { data: vec![-1.0, 1.0], columns: 1 };
    check(ExitHead::LowRank { norm: norm.clone(), down, up }, 0, gap(7.0 - 2.0 * 2.828_427));
    // [0 - 4 + 0.5, 3 + 0 + 1] = [-3.5, 4]
    let weight = Matrix { data: vec![0.0, 1.0, 1.0, 0.0], columns: 2 };
    check(ExitHead::Affine { weight, bias: vec![0.5, 1.0] }, 1, gap(7.5));
    // [-1.697056, -1.131371]
    let vocabulary = Matrix { data: vec![-1.0, 0.0, 0.0, 1.0], columns: 2 };
    check(ExitHead::Linear { norm, vocabulary }, 1, gap(0.565_685));
}

/// The shared head of the toy on the states themselves.
#[test]
fn untrained_heads_are_the_shared_head() {
    let sources: [&[Token]; 3] = [&[3], &[4, 5, 6, 7, 2], &[9, 8]];
    for seed in 0..5 {
        let toy = Toy::new(4, seed);
        let head = untrained(HeadKind::LowRank, toy.shape().d_model);
        let heads = heads(&[1, 2, 3], &head, toy.shape()).unwrap();
        let toy = toy.with_exit_heads(Some(heads));
        let decoded = |id: &str| {
            let policy = id.parse::<PolicySpec>().unwrap().make(&toy).unwrap();
            let generations =
                decode(&*toy.read(&sources).unwrap(), &*policy, &DecodeOptions::new(12)).unwrap();
            generations.into_iter().map(|g| (g.tokens, g.exit_layers, g.confidence)).collect::<Vec<_>>()
        };
        for rest in ["0.3", "0.6-tau2", "0.5-exits1.3"] {
            assert_eq!(
                decoded(&format!("calm-head_margin-{rest}")),
                decoded(&format!("calm-softmax-{rest}"))
            );
        }
    }
}

#[test]
fn a_layer_without_a_head_is_an_error_that_says_what_to_do() {
    let toy = Toy::new(4, 1);
    let head = untrained(HeadKind::Affine, toy.shape().d_model);
    let some = heads(&[1, 3], &head, toy.shape()).unwrap();
    assert_eq!(some.layers().to_string(), "1.3");
    let toy = toy.with_exit_heads(Some(some));
    let made = |id: &str| id.parse::<PolicySpec>().unwrap().make(&toy).map(|_| ()).map_err(|e| e.to_string());
    let expected = "the head_max measure cannot test after layer 2, but only after 1.3: name exits among these, as \
                    in -exits1.3, or train exit heads for all layers";
    assert_eq!(made("calm-head_max-0.5"), Err(expected.to_owned()));
    assert_eq!(made("calm-head_max-0.5-exits1.3"), Ok(()));
    assert_eq!(made("calm-level_max-0.5-exits1.3"), Ok(()));
    assert!(made("calm-level_max-0.5-exits2").unwrap_err().contains("after layer 2"));
    let toy = Toy::new(4, 1).with_exit_heads(None);
    let error = "calm-head_max-0.5".parse::<PolicySpec>().unwrap().make(&toy).err().unwrap().to_string();
    assert_eq!(
        error,
        "the head_max measure needs exit heads, which `calm train --heads` trains, and the model has none"
    );
}

#[test]
fn heads_that_do_not_fit_are_refused() {
    let shape = shape(3, 4, 5);
    let refused = |layers: &[usize], head: &ExitHead| heads(layers, head, &shape).unwrap_err();
    let head = untrained(HeadKind::LowRank, 4);
    assert_eq!(refused(&[], &head), "there must be a head at least");
    assert_eq!(refused(&[1, 3], &head), "a head of layer 3 is none below the last of 3");
    assert_eq!(refused(&[0], &head), "exits are layers from 1 to 64, not 0");
    assert_eq!(
        refused(&[1], &untrained(HeadKind::LowRank, 6)),
        "the head of layer 1 has a norm of 6 elements instead of 4"
    );
    assert_eq!(
        refused(&[2], &untrained(HeadKind::Linear, 4)),
        "the head of layer 2 has a vocabulary of the shape [4, 4] instead of [5, 4]"
    );
    let mixed = BTreeMap::from([(1, head), (2, untrained(HeadKind::Affine, 4))]);
    let error = ExitHeads::new(mixed, FittedTo { tokens: 0, sources: Vec::new() }, &shape).unwrap_err();
    assert_eq!(error, "the heads are low-rank, but that of layer 2 is affine");
}

/// A multiplication and an addition for each weight; the shared head is 200 FLOPs and 50 bytes.
#[test]
fn costs_are_those_of_the_matrices() {
    let costs = |kind: HeadKind| {
        let shape = shape(2, 4, 4);
        let heads = heads(&[1], &untrained(kind, 4), &shape).unwrap();
        (heads.flops(shape.flops.head), heads.bytes(shape.bytes.head))
    };
    assert_eq!(costs(HeadKind::LowRank), (2.0 * 16.0 + 200.0, 4.0 * 16.0 + 50.0));
    assert_eq!(costs(HeadKind::Affine), (2.0 * 16.0 + 200.0, 4.0 * 16.0 + 50.0));
    assert_eq!(costs(HeadKind::Linear), (2.0 * 16.0, 4.0 * 16.0));
}
