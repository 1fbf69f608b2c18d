//! Every reference decoding of calm-model's tests, through the command.

use std::collections::BTreeMap;

use calm_core::{PolicySpec, Token};
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

fn flags(policy: &PolicySpec) -> Vec<String> {
    let flags = match policy {
        PolicySpec::Full => "--policy full".to_owned(),
        PolicySpec::Static { layers } => format!("--policy static --static-layers {layers}"),
        PolicySpec::Oracle => "--policy oracle".to_owned(),
        PolicySpec::Calm { measure, threshold } => {
            let decay = threshold.decay().map(|tau| format!(" --decay {tau}")).unwrap_or_default();
            format!("--policy calm --measure {measure} --threshold {}{decay}", threshold.value())
        }
    };
    flags.split(' ').map(str::to_owned).collect()
}

/// A start of the command per policy; the ways to batch and to share the work take turns.
fn check(name: &str, cases_in_all: usize) {
    let text = std::fs::read_to_string(reference_checkpoint(name).join("cases.json")).unwrap();
    let cases = serde_json::from_str::<Cases>(&text).unwrap().cases;
    let mut by_policy: BTreeMap<(String, usize), Vec<Case>> = BTreeMap::new();
    for case in cases {
        by_policy.entry((case.policy.id(), case.max_tokens)).or_default().push(case);
    }
    let ways = [("1", "1"), ("8", "1"), ("1", "2"), ("8", "2"), ("3", "2")];
    let mut seen = 0;
    for (((id, max_tokens), cases), (batch_size, threads)) in by_policy.iter().zip(ways.iter().cycle()) {
        let max_tokens = max_tokens.to_string();
        let mut arguments = flags(&cases[0].policy);
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
    check("v1_0", 211);
}

#[test]
fn v1_1() {
    check("v1_1", 210);
}
