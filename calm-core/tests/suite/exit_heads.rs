//! Exit heads: what they compute, what measures make of them, and where they cannot be used.

use std::collections::BTreeMap;

use calm_core::{
    Backbone, BackboneShape, Confidence, Cost, DecodeOptions, ExitHead, ExitHeads, Exits, FittedTo,
    HeadConfidence, HeadKind, HeadNorm, MEASURES, Matrix, PolicySpec, Token, decode,
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
    ExitHeads::new(heads, None, nothing(), shape)
}

fn nothing() -> FittedTo {
    FittedTo { tokens: 0, sources: Vec::new() }
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
    let error = ExitHeads::new(mixed, None, nothing(), &shape).unwrap_err();
    assert_eq!(error, "the heads are low-rank, but that of layer 2 is affine");
}

/// A multiplication and an addition for each weight; the shared head is 200 FLOPs and 50 bytes.
#[test]
fn costs_are_those_of_the_matrices() {
    let costs = |kind: HeadKind| {
        let shape = shape(2, 4, 4);
        let heads = heads(&[1], &untrained(kind, 4), &shape).unwrap();
        (heads.flops(&shape), heads.bytes(&shape))
    };
    assert_eq!(costs(HeadKind::LowRank), (2.0 * 16.0 + 200.0, 4.0 * 16.0 + 50.0));
    assert_eq!(costs(HeadKind::Affine), (2.0 * 16.0 + 200.0, 4.0 * 16.0 + 50.0));
    assert_eq!(costs(HeadKind::Linear), (2.0 * 16.0, 4.0 * 16.0));
    // One token of four is a quarter of the shared head.
    let shape = shape(2, 4, 4);
    let head = BTreeMap::from([(2, untrained(HeadKind::Affine, 4))]);
    let heads = ExitHeads::new(head, Some(vec![3]), nothing(), &shape).unwrap();
    assert_eq!((heads.flops(&shape), heads.bytes(&shape)), (2.0 * 16.0 + 50.0, 4.0 * 16.0 + 12.5));
}

/// Heads of all layers of a toy, the last one's included, that are the shared head for some tokens.
fn knowing(tokens: &[Token], toy: &Toy) -> ExitHeads {
    let (shape, layers) = (toy.shape(), 1..=toy.shape().num_layers);
    let head = |layer| (layer, untrained(HeadKind::LowRank, shape.d_model));
    ExitHeads::new(layers.map(head).collect(), Some(tokens.to_vec()), nothing(), shape).unwrap()
}

#[test]
fn vocabularies_that_are_none_are_refused() {
    let shape = shape(3, 4, 5);
    let refused = |tokens: &[Token], layer: usize, kind: HeadKind| {
        let head = BTreeMap::from([(layer, untrained(kind, 4))]);
        ExitHeads::new(head, Some(tokens.to_vec()), nothing(), &shape).err()
    };
    let must_ascend = "the tokens that heads know must ascend, and there must be one at least";
    for tokens in [&[][..], &[2, 1], &[2, 2]] {
        assert_eq!(refused(tokens, 1, HeadKind::LowRank).as_deref(), Some(must_ascend), "{tokens:?}");
    }
    let error = "token 5 is not in the vocabulary, which ends at 5";
    assert_eq!(refused(&[1, 5], 1, HeadKind::LowRank).as_deref(), Some(error));
    let error = "the head of layer 2 has a vocabulary of the shape [4, 4] instead of [2, 4]";
    assert_eq!(refused(&[1, 4], 2, HeadKind::Linear).as_deref(), Some(error));
    assert_eq!(refused(&[0, 1, 3, 4], 3, HeadKind::Linear), None);
    let error = "a head of layer 4 is none below the last of 3";
    assert_eq!(refused(&[1], 4, HeadKind::Affine).as_deref(), Some(error));
}

/// Heads that know the tokens of the full model's outputs, and are the shared head for these, say what it
/// would: at the last layer tokens are those of the full model wherever they leave, and with a threshold that
/// only certainty reaches the whole head is asked.
#[test]
fn the_last_layer_may_leave_out_tokens_or_ask_the_whole_head() {
    let sources: [&[Token]; 3] = [&[3], &[4, 5, 6, 7, 2], &[9, 8]];
    for seed in 0..8 {
        let toy = Toy::new(3, seed);
        let options = DecodeOptions { ignore_eos: true, ..DecodeOptions::new(9) };
        let decoded = |toy: &Toy, id: &str| {
            let policy = id.parse::<PolicySpec>().unwrap().make(toy).unwrap();
            decode(&*toy.read(&sources).unwrap(), &*policy, &options).unwrap()
        };
        let full = decoded(&toy, "full");
        let mut known: Vec<Token> = full.iter().flat_map(|g| g.tokens.clone()).collect();
        known.sort_unstable();
        known.dedup();
        let heads = knowing(&known, &toy);
        let toy = toy.with_exit_heads(Some(heads));
        let tokens = |of: &[calm_core::Generation]| of.iter().map(|g| g.tokens.clone()).collect::<Vec<_>>();
        for threshold in ["0", "0.5", "0.999999"] {
            let found = decoded(&toy, &format!("calm-head_margin-{threshold}-exits3"));
            assert_eq!(tokens(&found), tokens(&full), "{threshold}");
            for generation in &found {
                assert!(generation.exit_layers.iter().all(|&layer| layer == 3));
                let is_sure = |confidence: &&Option<f32>| confidence.unwrap() >= threshold.parse().unwrap();
                let unsure = generation.tokens.len() - generation.confidence.iter().filter(is_sure).count();
                assert_eq!(generation.fallbacks, unsure, "{threshold}");
                let spec: PolicySpec = format!("calm-head_margin-{threshold}-exits3").parse().unwrap();
                let flops = toy.shape().sequence_flops(&spec, generation, 4);
                let base = toy.shape().sequence_flops(
                    &spec,
                    &calm_core::Generation { fallbacks: 0, ..generation.clone() },
                    4,
                );
                let fallbacks = unsure as f64 * toy.shape().flops.head;
                assert!((flops - base - fallbacks).abs() < 1e-6 * flops);
            }
        }
        // Without the tokens that the full model gives, others come.
        let other: Vec<Token> = (0..11).filter(|token| !known.contains(token)).collect();
        if !other.is_empty() {
            let heads = knowing(&other, &toy);
            let found = decoded(&toy.with_exit_heads(Some(heads)), "calm-head_margin-0-exits1.3");
            assert!(found.iter().flat_map(|g| &g.tokens).all(|token| other.contains(token)));
        }
    }
}

/// Probabilities are the logistic function of what was trained, on a state of unit length per element.
#[test]
fn a_trained_confidence_reads_state_and_margin() {
    let toy = Toy::new(2, 1);
    let d_model = toy.shape().d_model;
    let state: Vec<f32> = (0..d_model).map(|index| index as f32 - 2.5).collect();
    let weight: Vec<f32> = (0..d_model).map(|index| 0.1 * (index as f32 + 1.0)).collect();
    let confidence = HeadConfidence { weight: weight.clone(), margin: 0.5, bias: -0.25 };
    // The head shows the state as logits of these.
    let tokens: Vec<Token> = (0..d_model as Token).map(|column| column + 2).collect();
    let heads = knowing(&tokens, &toy);
    assert!(heads.clone().with_confidences(BTreeMap::from([(1, confidence.clone())]), toy.shape()).is_err());
    let short = HeadConfidence { weight: vec![0.0; 2], ..confidence.clone() };
    let both = |first: &HeadConfidence| BTreeMap::from([(1, first.clone()), (2, confidence.clone())]);
    let error = heads.clone().with_confidences(both(&short), toy.shape()).unwrap_err();
    assert_eq!(error, format!("the confidence of layer 1 has 2 weights instead of {d_model}"));
    let needs = |toy: &Toy| "calm-head_confidence-0.5-exits1".parse::<PolicySpec>().unwrap().make(toy).err();
    let toy = toy.with_exit_heads(Some(heads.clone()));
    assert!(needs(&toy).unwrap().to_string().contains("exit heads with a trained confidence"));

    let heads = heads.with_confidences(both(&confidence), toy.shape()).unwrap();
    let toy = toy.with_exit_heads(Some(heads));
    let made = |name: &str| MEASURES.get(name).unwrap().make(&toy, Exits::new(&[1, 2]).unwrap()).unwrap();
    let margin = confidences(&*made("head_margin"), &[&state])[0];
    let found = confidences(&*made("head_confidence"), &[&state])[0];
    assert_eq!(found.token, margin.token);
    assert_eq!(found.token, tokens.last().copied());
    let length = (state.iter().map(|x| x * x).sum::<f32>() / d_model as f32).sqrt();
    let of_state: f32 = state.iter().zip(&weight).map(|(x, weight)| x / length * weight).sum();
    let odds = margin.value / (1.0 - margin.value);
    let expected = 1.0 / (1.0 + (-(of_state + 0.5 * odds.ln() - 0.25)).exp());
    assert!((found.value - expected).abs() < 1e-5, "{} is not {expected}", found.value);
}
