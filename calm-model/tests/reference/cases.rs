//! The cases of this folder, and how to compare an engine with them. Test suites of engines include this
//! file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use calm_core::{Backbone, DecodeOptions, Generation, PolicySpec, Propagation, Token, decode};

#[derive(serde::Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Clone, serde::Deserialize)]
pub(crate) struct Case {
    pub(crate) input_ids: Vec<Token>,
    pub(crate) max_tokens: usize,
    pub(crate) policy: PolicySpec,
    pub(crate) tokens: Vec<Token>,
    pub(crate) exit_layers: Vec<usize>,
    pub(crate) confidence: Vec<Option<f32>>,
}

/// Finds the folder of a checkpoint: where the test was compiled or, on another machine, in the repository in
/// which it runs.
pub(crate) fn checkpoint(name: &str) -> PathBuf {
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../calm-model/tests/reference");
    let folder = if compiled.is_dir() { compiled } else { PathBuf::from("calm-model/tests/reference") };
    folder.join(name)
}

/// Tolerance of the confidences of an f32 network against f64; decisions are 1e-3 away from a tie.
pub(crate) const F32_TOLERANCE: f32 = 5e-4;

pub(crate) fn cases(name: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(checkpoint(name).join("cases.json")).unwrap();
    serde_json::from_str::<Cases>(&text).unwrap().cases
}

pub(crate) fn check(case: &Case, generation: &Generation, tolerance: f32) {
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

pub(crate) fn decode_cases<B: Backbone>(
    model: &B,
    cases: &[&Case],
    propagation: Propagation,
) -> Vec<Generation> {
    let sources: Vec<&[Token]> = cases.iter().map(|case| case.input_ids.as_slice()).collect();
    let encoded = model.encode(&sources).unwrap();
    let policy = cases[0].policy.resolve(model).unwrap();
    let options = DecodeOptions { max_tokens: cases[0].max_tokens, propagation };
    decode(model, &encoded, cases.len(), &policy, &options).unwrap()
}

/// Checks every case by itself.
pub(crate) fn check_alone(model: &impl Backbone, cases: &[Case], tolerance: f32) {
    for case in cases {
        check(case, &decode_cases(model, &[case], Propagation::Lazy)[0], tolerance);
    }
}

/// Checks all cases in batches of mixed lengths.
pub(crate) fn check_in_batches(model: &impl Backbone, cases: &[Case], tolerance: f32) {
    let mut by_policy: BTreeMap<String, Vec<&Case>> = BTreeMap::new();
    for case in cases {
        by_policy.entry(case.policy.id()).or_default().push(case);
    }
    for (size, propagation) in [(3, Propagation::Lazy), (8, Propagation::Lazy), (8, Propagation::Eager)] {
        for cases in by_policy.values() {
            for rows in cases.chunks(size) {
                for (case, generation) in rows.iter().zip(decode_cases(model, rows, propagation)) {
                    check(case, &generation, tolerance);
                }
            }
        }
    }
}
