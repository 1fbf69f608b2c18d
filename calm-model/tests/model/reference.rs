//! Every decoding in `tests/reference/*/cases.json`, alone and in batches of mixed lengths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use calm_checkpoint::T5Config;
use calm_core::{Backbone, DecodeOptions, Generation, PolicySpec, Propagation, Token, decode};
use calm_model::{T5, Weights};
use tch::{Device, Kind};

#[derive(serde::Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Clone, serde::Deserialize)]
struct Case {
    input_ids: Vec<Token>,
    max_tokens: usize,
    policy: PolicySpec,
    tokens: Vec<Token>,
    exit_layers: Vec<usize>,
    confidence: Vec<Option<f32>>,
}

pub(crate) fn checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)
}

/// Confidences of an f32 network against f64; decisions are 1e-3 away from a tie.
const F32_TOLERANCE: f32 = 5e-4;

fn cases(name: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(checkpoint(name).join("cases.json")).unwrap();
    serde_json::from_str::<Cases>(&text).unwrap().cases
}

fn check(case: &Case, generation: &Generation, tolerance: f32) {
    let context = format!("{} on {} tokens", case.policy, case.input_ids.len());
    assert_eq!(generation.tokens, case.tokens, "{context}");
    assert_eq!(generation.exit_layers, case.exit_layers, "{context}");
    assert_eq!(generation.confidence.len(), case.confidence.len(), "{context}");
    for (found, expected) in generation.confidence.iter().zip(&case.confidence) {
        match (found, expected) {
            (Some(found), Some(expected)) => {
                assert!((found - expected).abs() < tolerance, "{context}: {found} instead of {expected}");
            }
            _ => assert_eq!(found, expected, "{context}"),
        }
    }
}

fn decode_cases(model: &T5, cases: &[&Case], propagation: Propagation) -> Vec<Generation> {
    let sources: Vec<&[Token]> = cases.iter().map(|case| case.input_ids.as_slice()).collect();
    let encoded = model.encode(&sources).unwrap();
    let policy = cases[0].policy.resolve(model).unwrap();
    let options = DecodeOptions { max_tokens: cases[0].max_tokens, propagation };
    decode(model, &encoded, cases.len(), &policy, &options).unwrap()
}

fn device() -> Device {
    tch::set_num_threads(1);
    // `CALM_TEST_DEVICE=cuda:0 cargo test -p calm-model` runs the same cases on a GPU.
    calm_model::device::init(Some(std::env::var("CALM_TEST_DEVICE").as_deref().unwrap_or("cpu"))).unwrap()
}

#[test]
fn reference_cases_alone() {
    for name in ["v1_0", "v1_1"] {
        let model = T5::load(&checkpoint(name), device()).unwrap();
        assert_eq!(model.unexpected(), &[] as &[String]);
        for case in cases(name) {
            check(&case, &decode_cases(&model, &[&case], Propagation::Lazy)[0], F32_TOLERANCE);
        }
    }
}

/// What separates f32 from the reference is rounding alone: in f64 the confidences agree to the precision they are kept in.
#[test]
fn reference_cases_in_double_precision() {
    for name in ["v1_0", "v1_1"] {
        let config = T5Config::load(&checkpoint(name).join("config.json")).unwrap();
        let weights = Weights::load(&checkpoint(name), device()).unwrap();
        let model = T5::new(&config, &weights.map(|tensor| tensor.to_kind(Kind::Double))).unwrap();
        for case in cases(name) {
            check(&case, &decode_cases(&model, &[&case], Propagation::Lazy)[0], 2e-6);
        }
    }
}

#[test]
fn reference_cases_in_batches_of_mixed_lengths() {
    for name in ["v1_0", "v1_1"] {
        let model = T5::load(&checkpoint(name), device()).unwrap();
        let mut by_policy: BTreeMap<String, Vec<Case>> = BTreeMap::new();
        for case in cases(name) {
            by_policy.entry(case.policy.id()).or_default().push(case);
        }
        for (size, propagation) in [(3, Propagation::Lazy), (8, Propagation::Lazy), (8, Propagation::Eager)] {
            for cases in by_policy.values() {
                for rows in cases.chunks(size) {
                    let rows: Vec<&Case> = rows.iter().collect();
                    for (case, generation) in rows.iter().zip(decode_cases(&model, &rows, propagation)) {
                        check(case, &generation, F32_TOLERANCE);
                    }
                }
            }
        }
    }
}

#[test]
fn a_shared_handle_decodes_on_another_thread() {
    let model = T5::load(&checkpoint("v1_1"), device()).unwrap();
    let other = model.share();
    let case = cases("v1_1").swap_remove(0);
    std::thread::spawn(move || {
        check(&case, &decode_cases(&other, &[&case], Propagation::Lazy)[0], F32_TOLERANCE)
    })
    .join()
    .unwrap();
    assert_eq!(model.fingerprint().len(), 64);
}

#[test]
fn sources_that_cannot_be_encoded_are_refused() {
    let model = T5::load(&checkpoint("v1_1"), device()).unwrap();
    let message = |sources: &[&[Token]]| model.encode(sources).err().unwrap().to_string();
    assert_eq!(message(&[&[5], &[]]), "source 1 of the batch has no tokens");
    assert_eq!(
        message(&[&[5, 211]]),
        "source 0 of the batch holds token 211, but the vocabulary ends at 211"
    );
}
