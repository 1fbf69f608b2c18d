//! The measure by itself, and through both programs as one of their own.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use measure_entropy::normalised_entropy;
use proptest::prelude::*;

#[test]
fn entropy_is_0_without_doubt_and_1_where_all_is_equal() {
    assert_eq!(normalised_entropy(&[200.0, 0.0, 0.0]), 0.0);
    assert_eq!(normalised_entropy(&[7.0, f32::NEG_INFINITY]), 0.0);
    assert!((normalised_entropy(&[7.0, 7.0, 7.0]) - 1.0).abs() < 1e-6);
    // -(0.25 ln 0.25 + 0.75 ln 0.75) / ln 2
    assert!((normalised_entropy(&[0.0, 3.0_f32.ln()]) - 0.811_278).abs() < 1e-6);
}

proptest! {
    #[test]
    fn entropy_is_a_share_and_does_not_change_with_a_shift(
        logits in proptest::collection::vec(-30.0..30.0_f32, 2..40),
    ) {
        let entropy = normalised_entropy(&logits);
        prop_assert!((-1e-6..=1.0 + 1e-6).contains(&entropy), "{}", entropy);
        let shifted: Vec<f32> = logits.iter().map(|logit| logit + 64.0).collect();
        prop_assert!((normalised_entropy(&shifted) - entropy).abs() < 1e-3);
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn run(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(program);
    let output = command.current_dir(root()).args(arguments).write_stdin(input).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn the_experiment_has_the_measure_in_its_tables_and_figures() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let mut arguments = vec!["configs/entropy.toml", "--out", out, "--engine", "cpu"];
    for setting in [
        "data.test_examples=4",
        "data.calibration_examples=6",
        "decode.max_tokens=6",
        "sweep.static_layers=[]",
        "calibration.trials.count=0",
        "sweep.measures=['entropy']",
        "sweep.measure.entropy.thresholds=[0.9, 0.6]",
        "sweep.policies=['calm-entropy-0.75-tau4']",
    ] {
        arguments.extend(["--set", setting]);
    }
    run(env!("CARGO_BIN_EXE_measure-entropy"), &arguments, "");
    let mut sweep = csv::Reader::from_path(folder.path().join("sweep.csv")).unwrap();
    let rows: Vec<Vec<String>> =
        sweep.records().map(|record| record.unwrap().iter().take(4).map(str::to_owned).collect()).collect();
    assert_eq!(
        rows,
        [
            ["full", "", "", ""],
            ["oracle", "", "", ""],
            ["calm", "entropy", "0.9", ""],
            ["calm", "entropy", "0.6", ""],
            ["calm", "entropy", "0.75", "4.0"],
        ]
    );
    let figure = std::fs::read_to_string(folder.path().join("plots/quality_vs_layers.svg")).unwrap();
    assert!(figure.contains("entropy") && figure.contains("calm-entropy-0.75-tau4"));
}

#[test]
fn a_certificate_for_the_measure_is_made_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = folder.path().join("entropy.json");
    let certificate = certificate.to_str().unwrap();
    let calm = env!("CARGO_BIN_EXE_calm-entropy");
    let model = ["--engine", "cpu", "--model", "models/debian-en-fr"];
    let data = ["--data", "data/translation/calibration.parquet", "--limit", "20", "--max-tokens", "6"];
    let what = ["--measure", "entropy", "--thresholds", "0.999,0.99", "--delta", "0.9"];
    run(calm, &[&["calibrate", "--output", certificate][..], &model, &data, &what].concat(), "");
    let written: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(certificate).unwrap()).unwrap();
    assert_eq!(written["policy"], "calm-entropy-*");

    let input = "{\"source\": \"translate English to French: a free mail reader\"}\n";
    let generate = |policy: &[&str]| {
        let arguments = [&["generate", "--input", "-"][..], &model, policy].concat();
        String::from_utf8(run(calm, &arguments, input).stdout).unwrap()
    };
    let threshold = written["threshold"].to_string();
    let by_id = generate(&["--policy", &format!("calm-entropy-{threshold}"), "--max-tokens", "6"]);
    assert_eq!(generate(&["--calibration", certificate]), by_id);
    let help = String::from_utf8(run(calm, &["generate", "--help"], "").stdout).unwrap();
    assert!(help.contains("entropy  ") && help.contains("1 minus the entropy"), "{help}");
}
