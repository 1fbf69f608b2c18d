//! Every reference decoding of calm-model's tests, through the command.

use std::collections::BTreeMap;
use std::path::PathBuf;

use calm_core::{Parameters, PolicySpec, Token};
use serde::Deserialize;
use serde_json::json;

use crate::command::{generate, printed, reference_checkpoint};

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    input_ids: Vec<Token>,
    max_tokens: usize,
    policy: PolicySpec,
    #[serde(flatten)]
    expected: Line,
}

#[derive(Debug, Deserialize)]
struct Line {
    tokens: Vec<Token>,
    exit_layers: Vec<usize>,
    confidence: Vec<Option<f32>>,
}

/// Half of the policies by their ids, the others by a flag for each parameter.
fn flags(number: usize, policy: &PolicySpec) -> Vec<String> {
    let Parameters { layers, measure, threshold, .. } = policy.parameters();
    if number.is_multiple_of(2) {
        return vec!["--policy".to_owned(), policy.to_string()];
    }
    let mut flags = format!("--policy {}", policy.kind().name);
    flags += &layers.map(|layers| format!(" --static-layers {layers}")).unwrap_or_default();
    flags += &measure.map(|measure| format!(" --measure {measure}")).unwrap_or_default();
    if let Some(threshold) = threshold {
        flags += &format!(" --threshold {}", threshold.value());
        flags += &threshold.decay().map(|tau| format!(" --decay {tau}")).unwrap_or_default();
    }
    flags.split(' ').map(str::to_owned).collect()
}

/// A start of the command per policy; the ways to batch and to share the work take turns.
fn check(name: &str, cases_in_all: usize) {
    let files = ["cases.json", "shallow_deep.json"].map(|file| reference_checkpoint(name).join(file));
    let of_file = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        serde_json::from_str::<Cases>(&text).unwrap().cases
    };
    let cases = files.iter().filter(|path| path.is_file()).flat_map(of_file);
    let mut by_policy: BTreeMap<(String, usize), Vec<Case>> = BTreeMap::new();
    for case in cases {
        by_policy.entry((case.policy.to_string(), case.max_tokens)).or_default().push(case);
    }
    let ways = [("1", "1"), ("8", "1"), ("1", "2"), ("8", "2"), ("3", "2")];
    let mut seen = 0;
    let by_policy = by_policy.iter().zip(ways.iter().cycle()).enumerate();
    for (number, (((id, max_tokens), cases), (batch_size, threads))) in by_policy {
        let max_tokens = max_tokens.to_string();
        let mut arguments = flags(number, &cases[0].policy);
        arguments.extend(
            ["--max-tokens", &max_tokens, "--batch-size", batch_size, "--threads", threads]
                .map(str::to_owned),
        );
        let input: String =
            cases.iter().map(|case| format!("{}\n", json!({ "input_ids": case.input_ids }))).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = printed(generate(&reference_checkpoint(name), &arguments, &input));
        assert_eq!(output.lines().count(), cases.len(), "{id}");
        for (case, line) in cases.iter().zip(output.lines()) {
            let found: Line = serde_json::from_str(line).unwrap();
            assert_eq!(found.tokens, case.expected.tokens, "{id}");
            assert_eq!(found.exit_layers, case.expected.exit_layers, "{id}");
            assert_eq!(found.confidence.len(), case.expected.confidence.len(), "{id}");
            for (found, expected) in found.confidence.iter().zip(&case.expected.confidence) {
                assert_eq!(found.is_some(), expected.is_some(), "{id}");
                // f32 against f64; every decision is 1e-3 away from a tie.
                let difference = (found.unwrap_or(0.0) - expected.unwrap_or(0.0)).abs();
                assert!(difference < 5e-4, "{id}: {found:?}, not {expected:?}");
            }
            seen += 1;
        }
    }
    assert_eq!(seen, cases_in_all);
}

#[test]
fn v1_0() {
    check("v1_0", 233);
}

#[test]
fn v1_1() {
    check("v1_1", 240);
}

#[test]
fn llama_gqa_tied() {
    check("llama_gqa_tied", 277);
}
