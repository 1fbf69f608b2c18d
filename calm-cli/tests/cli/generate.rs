use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::command::{
    NUMBERS, complaint, copied_checkpoint, generate, notes, printed, reference_checkpoint, write_tokenizer,
};

/// Sources of many lengths: line i starts with token i + 2.
fn token_lines(count: usize) -> String {
    let tokens = |i: usize| (0..1 + i * 7 % 13).map(|j| 2 + (i + j * 31) % 200).collect::<Vec<_>>();
    (0..count).map(|i| format!("{}\n", json!({ "input_ids": tokens(i) }))).collect()
}

fn values(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Confidences are sums whose order may depend on the batch; all else is exact.
#[track_caller]
fn assert_same(found: &str, expected: &str, way: &str) {
    let (found, expected) = (values(found), values(expected));
    assert_eq!(found.len(), expected.len(), "{way}");
    for (line, (found, expected)) in (1..).zip(found.iter().zip(&expected)) {
        for key in ["text", "tokens", "exit_layers", "average_layers"] {
            assert_eq!(found[key], expected[key], "{way}, line {line}, {key}");
        }
        let confidences = |value: &Value| -> Vec<f64> {
            value["confidence"].as_array().unwrap().iter().map(|c| c.as_f64().unwrap()).collect()
        };
        for (found, expected) in confidences(found).iter().zip(&confidences(expected)) {
            assert!((found - expected).abs() < 1e-4, "{way}, line {line}: {found}, not {expected}");
        }
    }
}

#[test]
fn results_are_in_input_order_whatever_the_batches_and_threads() {
    let model = reference_checkpoint("v1_1");
    let input = token_lines(41);
    let policy = ["--policy", "calm", "--threshold", "0.4", "--decay", "2", "--max-tokens", "12"];
    let run = |batch_size: &str, threads: &str| {
        let arguments = [&policy[..], &["--batch-size", batch_size, "--threads", threads]].concat();
        printed(generate(&model, &arguments, &input))
    };
    let expected = run("1", "1");
    let lines = values(&expected);
    assert_eq!(lines.len(), 41);
    let depths: Vec<f64> = lines.iter().map(|line| line["average_layers"].as_f64().unwrap()).collect();
    assert!(depths.iter().any(|&depth| depth > 1.0 && depth < 4.0), "{depths:?}");
    assert!(lines.iter().all(|line| line.get("text").is_none()));
    for (batch_size, threads) in [("1", "3"), ("5", "1"), ("16", "2"), ("100000000000000000", "2")] {
        assert_same(&run(batch_size, threads), &expected, &format!("{batch_size} by {threads}"));
    }
    // A line alone gives what it gave among others.
    for (line, expected) in [(0, expected.lines().next().unwrap()), (40, expected.lines().last().unwrap())] {
        let found = printed(generate(&model, &policy, input.lines().nth(line).unwrap()));
        assert_same(&found, expected, &format!("line {line} alone"));
    }
}

#[test]
fn beams_search_with_all_layers() {
    let model = reference_checkpoint("v1_1");
    let input = token_lines(13);
    let run =
        |arguments: &[&str]| printed(generate(&model, &[&["--max-tokens", "9"], arguments].concat(), &input));
    let greedy = run(&[]);
    assert_eq!(run(&["--beams", "1"]), greedy);
    let found = run(&["--beams", "3"]);
    assert_eq!(run(&["--beams", "3", "--batch-size", "1", "--threads", "1"]), found);
    let (greedy, found) = (values(&greedy), values(&found));
    assert_eq!(found.len(), 13);
    assert!(found.iter().zip(&greedy).any(|(found, greedy)| found["tokens"] != greedy["tokens"]));
    assert!(found.iter().all(|line| line["average_layers"] == 4.0));
    let short = values(&run(&["--beams", "6", "--length-penalty", "-9"]));
    let length = |lines: &[Value]| -> usize {
        lines.iter().map(|line| line["tokens"].as_array().unwrap().len()).sum()
    };
    assert!(length(&short) < length(&found));

    let said = |arguments: &[&str]| complaint(&generate(&model, arguments, &input));
    assert_eq!(
        said(&["--beams", "2", "--policy", "static-2"]),
        "--beams is for the policy full alone, not for static-2"
    );
    assert_eq!(said(&["--beams", "0"]), "--beams is 0, but must be at least 1");
    assert_eq!(
        said(&["--beams", "2", "--length-penalty", "inf"]),
        "--length-penalty must be a number, not inf"
    );
}

#[test]
fn text_goes_in_and_comes_out() {
    let model = copied_checkpoint();
    write_tokenizer(&model.path().join("tokenizer.json"));
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["input.jsonl", "output.jsonl"].map(|name| folder.path().join(name));
    let sources: Vec<String> =
        NUMBERS.iter().map(|(english, _)| json!({ "source": english, "id": 7 }).to_string()).collect();
    std::fs::write(&input, sources.join("\r\n\n")).unwrap();
    let files =
        ["--input", input.to_str().unwrap(), "--output", output.to_str().unwrap(), "--max-tokens", "9"];
    assert_eq!(printed(generate(model.path(), &files, "")), "");
    let from_file = std::fs::read_to_string(&output).unwrap();
    let tokenizer = calm_checkpoint::Tokenizer::load(&model.path().join("tokenizer.json")).unwrap();
    let lines = values(&from_file);
    assert_eq!(lines.len(), 10);
    for line in &lines {
        let tokens: Vec<u32> = serde_json::from_value(line["tokens"].clone()).unwrap();
        // The checkpoint has logits for 211 tokens, the tokenizer knows 35.
        assert!(tokens.iter().all(|&token| token < 35), "{tokens:?}");
        assert_eq!(line["text"], tokenizer.decode(&tokens).unwrap());
        assert_eq!(line["average_layers"], 4.0);
    }
    let of_tokens: Vec<String> = NUMBERS
        .iter()
        .map(|(english, _)| json!({ "input_ids": tokenizer.encode(english).unwrap(), "id": 7 }).to_string())
        .collect();
    let from_tokens = printed(generate(model.path(), &files[4..], &of_tokens.join("\n")));
    assert_eq!(from_tokens, from_file);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_calm"))
        .args(["generate", "--device", "cpu", "--max-tokens", "3", "--input", "-", "--model"])
        .arg(reference_checkpoint("v1_0"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), token_lines(3).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(notes(&output.stderr), "");
}

#[test]
fn a_tensor_without_use_gives_a_warning() {
    let model = copied_checkpoint();
    let path = model.path().join("model.safetensors");
    let mut tensors = calm_model::read_safetensors(&path, tch::Device::Cpu).unwrap();
    tensors.insert("adapter.weight".into(), tch::Tensor::from_slice(&[1f32]));
    calm_model::write_safetensors(&path, tensors).unwrap();
    let output = generate(model.path(), &["--max-tokens", "2"], "{\"input_ids\": [5]}");
    assert!(output.status.success());
    let warning = notes(&output.stderr);
    assert_eq!(warning, "note: tensors of the checkpoint that are not used: adapter.weight\n");
}
