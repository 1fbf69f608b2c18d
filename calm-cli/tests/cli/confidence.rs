//! `calm fit-confidence` and `calm tune`, and that no guarantee comes from what was fitted to.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{calm, complaint, generate, notes};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn bundled(split: &str) -> String {
    root().join("data/translation").join(split).to_str().unwrap().to_owned()
}

/// A copy of the bundled English-French model, without maps.
fn copied_model() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let from = root().join("models/debian-en-fr").join(file);
        std::fs::copy(from, folder.path().join(file)).unwrap();
    }
    folder
}

const LENGTHS: [&str; 6] = ["--limit", "24", "--max-tokens", "24", "--max-source-tokens", "32"];

fn fit(model: &Path, arguments: &[&str]) -> Output {
    let common = ["fit-confidence", "--engine", "cpu", "--model", model.to_str().unwrap()];
    calm([&common, &LENGTHS[..], arguments].concat(), "")
}

/// An experiment whose calibration and test splits are those of the bundled data.
fn experiment(folder: &Path, test: &str, calibration: &str) -> PathBuf {
    let text = std::fs::read_to_string(root().join("configs/wmt.toml")).unwrap();
    let lines = text.lines().map(|line| match line.split(" = ").next() {
        Some("test") => format!("test = {test:?}"),
        Some("calibration") => format!("calibration = {calibration:?}"),
        _ => line.to_owned(),
    });
    let path = folder.join("experiment.toml");
    std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    path
}

#[test]
fn maps_are_fitted_used_and_kept_apart_from_guarantees() {
    let model = copied_model();
    let input = r#"{"source": "translate English to French: a free mail reader"}"#;
    let policy = ["--policy", "calm-agreement_pruned-0.9-exits2.4", "--engine", "cpu"];
    assert_eq!(
        complaint(&generate(model.path(), &policy, input)),
        "the agreement_pruned measure needs calm.agreement.json beside the model, which `calm fit-confidence` fits"
    );
    let beta = ["--policy", "calm-beta-0.9", "--engine", "cpu"];
    assert_eq!(
        complaint(&generate(model.path(), &beta, input)),
        "the beta measure needs calm.beta.json beside the model, which `calm fit-confidence` fits"
    );

    let report = model.path().join("report.json");
    let figure = model.path().join("figure");
    let data = bundled("calibration.parquet");
    let output = fit(
        model.path(),
        &["--data", &data, "--report", report.to_str().unwrap(), "--figure", figure.to_str().unwrap()],
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    // A line for the margin at each of 7 layers, and for each first test and later layer of a shortlist.
    assert_eq!(printed.lines().filter(|line| line.starts_with("margin ")).count(), 7);
    assert_eq!(printed.lines().filter(|line| line.starts_with("shortlist ")).count(), 28);
    let rows: Vec<Value> = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(rows.len(), 42);
    assert_eq!(printed.lines().filter(|line| line.starts_with("beta ")).count(), 7);
    assert!(rows.iter().all(|row| row["expected_calibration_error"].as_f64().unwrap() < 0.5));
    assert!(figure.join("reliability.svg").is_file());

    let output = generate(model.path(), &policy, input);
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    let layers: Vec<u64> = serde_json::from_value(line["exit_layers"].clone()).unwrap();
    assert!(!layers.is_empty() && layers.iter().all(|layer| [2, 4, 8].contains(layer)), "{layers:?}");
    let line: Value = serde_json::from_slice(&generate(model.path(), &beta, input).stdout).unwrap();
    let layers: Vec<u64> = serde_json::from_value(line["exit_layers"].clone()).unwrap();
    assert!(layers.iter().any(|&layer| layer < 8), "{layers:?}");
    assert_eq!(
        complaint(&generate(
            model.path(),
            &["--policy", "calm-agreement-0.9-exits8", "--engine", "cpu"],
            input
        )),
        "exits must be below the last of the decoder's 8 layers, but one is 8"
    );

    // The examples that it was fitted to cannot certify it; others can.
    let certificate = model.path().join("certificate.json");
    let calibrate = |data: &str, measure: &str| {
        let arguments = [
            "calibrate",
            "--engine",
            "cpu",
            "--model",
            model.path().to_str().unwrap(),
            "--data",
            data,
            "--measure",
            measure,
            "--exits",
            "2,4",
            "--thresholds",
            "0.9,0.6",
            "--delta",
            "0.6",
            "--metric",
            "chrf",
            "--output",
            certificate.to_str().unwrap(),
        ];
        calm([&arguments, &LENGTHS[..]].concat(), "")
    };
    for measure in ["agreement", "beta"] {
        let said = complaint(&calibrate(&data, measure));
        assert!(
            said.contains("was used to fit the confidence of") && said.starts_with("the calibration example"),
            "{said}"
        );
    }
    let output = calibrate(&bundled("test.parquet"), "agreement");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written: Value = serde_json::from_slice(&std::fs::read(&certificate).unwrap()).unwrap();
    assert_eq!(written["policy"], "calm-agreement-*-exits2.4");
    let output =
        generate(model.path(), &["--calibration", certificate.to_str().unwrap(), "--engine", "cpu"], input);
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    let layers: Vec<u64> = serde_json::from_value(line["exit_layers"].clone()).unwrap();
    assert!(layers.iter().all(|layer| [2, 4, 8].contains(layer)), "{layers:?}");

    // Exits are chosen with the maps that are there now.
    let tune = ["tune", "--engine", "cpu", "--model", model.path().to_str().unwrap(), "--data", &data];
    let output = calm([&tune, &LENGTHS[..], &["--timed", "2", "--agreement", "0.9"]].concat(), "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("90 % of tokens as the last layer's"), "{printed}");
    assert_eq!(printed.lines().filter(|line| line.starts_with("agreement_pruned ")).count(), 1 + 4);
}

#[test]
fn fits_do_not_see_what_experiments_measure_with() {
    let model = copied_model();
    let (test, calibration) = (bundled("test.parquet"), bundled("calibration.parquet"));
    let experiment = experiment(model.path(), &test, &calibration);
    let experiment = experiment.to_str().unwrap();
    for data in [&test, &calibration] {
        let said = complaint_after_a_note(&fit(model.path(), &["--data", data, "--experiment", experiment]));
        assert!(said.contains("is the test or calibration file of"), "{said}");
    }
    // The same sources in another file are left out.
    let copy = model.path().join("copy.parquet");
    std::fs::copy(&test, &copy).unwrap();
    let output = fit(model.path(), &["--data", copy.to_str().unwrap(), "--experiment", experiment]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("2000 examples of") && said.contains("the number of these is 0"), "{said}");
}

fn complaint_after_a_note(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    notes(&output.stderr)
}

#[test]
fn mistakes_are_named() {
    let model = copied_model();
    let check = |arguments: &[&str], expected: &str| {
        let said = complaint_after_a_note(&fit(model.path(), arguments));
        assert!(said.contains(expected), "{said}\ninstead of {expected}");
    };
    check(&["--data", "nowhere.parquet"], "nowhere.parquet");
    check(
        &["--data", &bundled("test.parquet"), "--batch-size", "0"],
        "--batch-size is 0, but must be at least 1",
    );
    let tune = ["tune", "--model", model.path().to_str().unwrap(), "--data", &bundled("test.parquet")];
    let said = complaint(&calm(tune, ""));
    assert_eq!(said, "the model has no calm.agreement.json, which `calm fit-confidence` makes");
    let said = complaint(&calm([&tune[..], &["--agreement", "1.5"]].concat(), ""));
    assert_eq!(said, "--agreement must be from 0 to 1, not 1.5");
}
