//! `calm bench` on the CPU engine: where the time goes, and exits that a file says.

use std::path::Path;
use std::process::Output;

use calm_checkpoint::T5Config;
use calm_cpu::Weights;
use serde_json::{Value, json};

use crate::command::{calm, complaint, printed, reference_checkpoint};

/// The reference checkpoint has 4 decoder layers.
fn bench(folder: &Path, arguments: &str) -> Output {
    let (model, json) = (reference_checkpoint("v1_1"), folder.join("bench.json"));
    let common = ["bench", "--model", model.to_str().unwrap(), "--json", json.to_str().unwrap()];
    let quick = "--dtype f32 --source-tokens 7 --new-tokens 5 --threads 1 --repetitions 1";
    let trace = folder.join("trace.jsonl").to_str().unwrap().to_owned();
    let arguments = arguments.split_whitespace().map(|word| if word == "TRACE" { &trace } else { word });
    calm(common.into_iter().chain(quick.split_whitespace()).chain(arguments), "")
}

fn cases(folder: &Path) -> Vec<Value> {
    let report = std::fs::read_to_string(folder.join("bench.json")).unwrap();
    serde_json::from_str::<Value>(&report).unwrap()["cases"].as_array().unwrap().clone()
}

fn write_trace(folder: &Path, lines: &[&[usize]]) {
    let line =
        |exit_layers: &&[usize]| json!({ "tokens": [7], "exit_layers": exit_layers }).to_string() + "\n";
    std::fs::write(folder.join("trace.jsonl"), lines.iter().map(line).collect::<String>()).unwrap();
}

#[test]
fn a_profile_divides_a_call_into_its_parts() {
    let folder = tempfile::tempdir().unwrap();
    let table =
        printed(bench(folder.path(), "--profile --policy full --policy calm-softmax-0.9 --batch-size 1,2"));
    let parts = ["encoder", "self-attention", "cross-attention", "feed-forward", "head", "confidence"];
    for part in parts.iter().chain(&["propagation", "loop", "waiting", "the call"]) {
        let rows = table.lines().filter(|line| line.split("  ").next() == Some(part));
        assert_eq!(rows.count(), 4, "{part}: {table}");
    }
    for case in cases(folder.path()) {
        let profile = &case["profile"];
        let of = |key: &str| -> f64 {
            let parts = profile["parts"].as_array().unwrap();
            parts.iter().map(|part| part[key].as_f64().unwrap()).sum()
        };
        let outside = profile["outside"].as_f64().unwrap();
        assert!((of("share") + outside - 1.0).abs() < 1e-9, "{profile}");
        assert!(
            (of("us_per_token") / profile["us_per_token"].as_f64().unwrap() + outside - 1.0).abs() < 1e-9
        );
        let tests = &profile["exit_tests"];
        if case["policy"] == "full" {
            assert!(tests.is_null());
        } else {
            assert_eq!(tests["layers_per_token"], case["executed_layers"]);
            assert!(tests["us_per_test"].as_f64().unwrap() > 0.0);
        }
    }
    printed(bench(folder.path(), ""));
    assert!(cases(folder.path())[0].get("profile").is_none());
}

/// Published vocabularies end in 200 entries that no text has.
#[test]
fn a_vocabulary_may_be_small() {
    for vocab_size in [2, 3, 4, 35, 200, 201, 260] {
        let folder = tempfile::tempdir().unwrap();
        let shape = T5Config {
            d_model: 16,
            d_kv: 8,
            d_ff: 16,
            num_heads: 2,
            ..T5Config::published("t5-small").unwrap()
        };
        let config = T5Config { num_layers: 1, num_decoder_layers: Some(2), vocab_size, ..shape };
        Weights::random(&config, 1).save(folder.path(), &config).unwrap();
        let model = folder.path().to_str().unwrap();
        let arguments = "--dtype f32 --source-tokens 9 --new-tokens 3 --threads 1 --repetitions 1";
        printed(calm(["bench", "--model", model].into_iter().chain(arguments.split_whitespace()), ""));
    }
}

/// With one thread there is nobody to wait for.
#[test]
fn the_share_of_operations_by_fewer_threads_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let table = printed(bench(folder.path(), ""));
    assert_eq!(cases(folder.path())[0]["with_fewer_threads"], 0.0);
    assert!(!table.contains("by fewer than"), "{table}");
}

#[test]
fn tokens_leave_where_a_trace_says() {
    let folder = tempfile::tempdir().unwrap();
    let policies =
        "--exit-trace TRACE --policy calm-softmax-0.999 --policy calm-state-0 --policy full --profile";
    // Five tokens a row: a short line comes again, and so do the lines.
    let long: &[usize] = &[1, 2, 3, 4, 1, 4, 4];
    let short: [&[usize]; 2] = [&[2, 3], &[4]];
    for (lines, batch, layers) in [(&[long][..], 1, 11), (&short, 2, 12 + 20), (&short, 3, 12 + 20 + 12)] {
        write_trace(folder.path(), lines);
        printed(bench(folder.path(), &format!("{policies} --batch-size {batch}")));
        let tokens = f64::from(5 * batch);
        for case in cases(folder.path()) {
            let layers = if case["policy"] == "full" { 4.0 } else { f64::from(layers) / tokens };
            assert_eq!(case["executed_layers"], layers, "{case}");
            let tests = &case["profile"]["exit_tests"]["tests_per_token"];
            assert_eq!(tests.is_null(), case["policy"] == "full");
        }
    }
}

#[test]
fn a_trace_has_to_fit_the_policies() {
    let folder = tempfile::tempdir().unwrap();
    let check = |arguments: &str, expected: &str| {
        let found = complaint(&bench(folder.path(), &format!("--exit-trace TRACE {arguments}")));
        assert!(found.contains(expected), "{found}\ninstead of {expected}");
    };
    let calm = "--policy calm-state-0.9";
    check(calm, "trace.jsonl: No such file");
    write_trace(folder.path(), &[]);
    check(calm, "trace.jsonl holds no line with exit layers");
    write_trace(folder.path(), &[&[1], &[]]);
    check(calm, "trace.jsonl:2: no exit layers");
    write_trace(folder.path(), &[&[1, 4], &[1], &[2, 8]]);
    check(calm, "trace.jsonl:3: an exit at layer 8, but the decoder has 4");
    write_trace(folder.path(), &[&[0]]);
    check(calm, "trace.jsonl:1: an exit at layer 0, but the decoder has 4");
    write_trace(folder.path(), &[&[1]]);
    for policy in ["static-2", "oracle", "patience-2", "calm-softmax-1"] {
        let expected = format!("{policy} tests no exits by a measure, which --exit-trace needs");
        check(&format!("--policy {policy}"), &expected);
    }
    check(
        "--policy calm-state-0.9-exits2.3",
        "trace.jsonl:1: an exit at layer 1, where the policy tests none",
    );
    std::fs::write(folder.path().join("trace.jsonl"), "{\"tokens\": [1]}").unwrap();
    check(calm, "trace.jsonl:1:15: missing field `exit_layers`");
}
