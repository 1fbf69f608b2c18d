//! The engines say the same.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::command::{calm, llama_with_tokenizer, notes, printed, reference_checkpoint};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The first sources of a bundled test split, one a line.
fn sources(task: &str, count: usize) -> String {
    let path = project(&format!("data/{task}/test.parquet"));
    let examples = calm_data::read_examples(path.as_path(), &calm_data::Columns::default()).unwrap();
    examples
        .iter()
        .take(count)
        .map(|example| json!({ "source": example.source }).to_string() + "\n")
        .collect()
}

fn tokens(model: &Path, input: &str, arguments: &[&str]) -> Vec<Value> {
    let model = model.to_str().unwrap();
    let common = [
        "generate",
        "--device",
        "cpu",
        "--model",
        model,
        "--input",
        "-",
        "--max-tokens",
        "40",
        "--max-source-tokens",
        "80",
    ];
    let output = printed(calm(common.iter().chain(arguments), input));
    let field = |line: &str| serde_json::from_str::<Value>(line).unwrap()["tokens"].clone();
    output.lines().map(field).collect()
}

#[test]
fn engines_generate_the_same_tokens() {
    for (model, task, count) in [
        ("models/debian-en-fr", "translation", 24),
        ("models/debian-tasks", "summarisation", 12),
        ("models/debian-tasks", "qa", 12),
    ] {
        let (model, sources) = (project(model), sources(task, count));
        for policy in ["--policy full", "--policy calm --measure state --threshold 0.95"] {
            let tokens = |engine: &str| {
                let arguments = format!("{policy} {engine}");
                tokens(&model, &sources, &arguments.split(' ').collect::<Vec<_>>())
            };
            let expected = tokens("--engine libtorch");
            assert_eq!(expected.len(), count);
            assert_eq!(tokens("--engine cpu --dtype f32"), expected, "{task}, {policy}");
            // The bundled weights are stored in bf16, so that nothing is lost in it.
            assert_eq!(tokens("--engine cpu --dtype bf16"), expected, "{task}, {policy}");
            let narrow = tokens("--engine cpu --dtype int8 --batch-size 5 --threads 3");
            let same = narrow.iter().zip(&expected).filter(|(a, b)| a == b).count();
            assert!(2 * same > count, "{task}, {policy}: int8 has {same} of {count} outputs in common");
        }
    }
}

/// Texts of a decoder begin as its tokenizer says and end as they are. One that is too long is cut in front.
#[test]
fn engines_go_on_from_the_texts_of_a_llama() {
    let folder = llama_with_tokenizer();
    let lines = |arguments: &str, input: &str| {
        let model = folder.path().to_str().unwrap();
        let common = ["generate", "--device", "cpu", "--model", model, "--input", "-", "--max-tokens", "12"];
        let output = printed(calm(common.into_iter().chain(arguments.split_whitespace()), input));
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let texts = "{\"source\": \"t5 t9 t13\"}\n{\"source\": \"t40 t41 t42 t43 t44\"}\n";
    let tokens = "{\"input_ids\": [1, 5, 9, 13]}\n{\"input_ids\": [1, 40, 41, 42, 43, 44]}\n";
    let last = "{\"input_ids\": [1, 9, 13]}\n{\"input_ids\": [1, 43, 44]}\n";
    let expected = lines("--engine cpu --dtype f32", tokens);
    for engine in
        ["--engine cpu --dtype f32", "--engine libtorch", "--engine libtorch --policy calm-softmax-0.2"]
    {
        assert_eq!(lines(engine, texts), lines(engine, tokens));
        let cut = format!("{engine} --max-source-tokens 3");
        assert_eq!(lines(&cut, texts), lines(engine, last));
    }
    for (found, expected) in lines("--engine libtorch", texts).iter().zip(&expected) {
        assert_eq!(found["tokens"], expected["tokens"]);
        // What begins or ends texts is no part of one.
        let tokens = found["tokens"].as_array().unwrap().iter().filter_map(Value::as_u64);
        let words = tokens.filter(|token| ![1, 2].contains(token)).map(|token| format!("t{token}"));
        let words: Vec<String> = words.collect();
        assert!(!words.is_empty());
        assert_eq!(found["text"], words.join(" "));
    }
}

#[test]
fn what_an_engine_cannot_do_is_said() {
    let model = reference_checkpoint("v1_1");
    let complaint = |arguments: &[&str]| {
        let model = model.to_str().unwrap();
        let common = ["generate", "--model", model, "--input", "-"];
        crate::command::complaint(&calm(common.iter().chain(arguments), "{\"input_ids\": [5, 1]}\n"))
    };
    assert_eq!(complaint(&["--engine", "cpu", "--device", "cuda:0"]), "the CPU engine has no device cuda:0");
    let narrow = ["--engine", "libtorch", "--device", "cpu", "--dtype", "int8"];
    assert_eq!(complaint(&narrow), "libtorch decodes in f32; other types are for the CPU engine");
    let narrow = ["--engine", "libtorch", "--device", "cpu", "--cache-dtype", "f16"];
    assert_eq!(
        complaint(&narrow),
        "libtorch keeps keys and values in f32; other types are for the CPU engine"
    );
    let usage = |arguments: &[&str]| {
        let output = calm(["generate", "--model", ".", "--input", "-"].iter().chain(arguments), "");
        notes(&output.stderr)
    };
    assert!(usage(&["--engine", "gpu"]).contains("unknown engine `gpu`: there are cpu and libtorch"));
    assert!(usage(&["--dtype", "int4"]).contains("unknown weight type `int4`: there are f32, bf16 and int8"));
    assert!(usage(&["--cache-dtype", "q8"]).contains("unknown cache type `q8`: there are f32, f16 and bf16"));
}

#[test]
fn a_benchmark_reports_every_case() {
    let model = reference_checkpoint("v1_1");
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("bench.json");
    let arguments = "--engine cpu --engine libtorch --policy full --policy calm-state-0.5 --batch-size 1,3 --dtype f32,int8 \
                     --cache-dtype f32,f16 --source-tokens 7 --new-tokens 5 --threads 2 --repetitions 1";
    let model = ["bench", "--model", model.to_str().unwrap(), "--json", json.to_str().unwrap()];
    let table = printed(calm(model.into_iter().chain(arguments.split_whitespace()), ""));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), (2 * 2 + 1) * 2 * 2);
    // On a busy machine it also warns, and says what fewer threads did.
    let of_busy = ["of the operations by fewer than", "warning: "];
    let of_cases = table.lines().filter(|line| !of_busy.iter().any(|words| line.contains(words)));
    assert_eq!(of_cases.count(), 2 + cases.len());
    for case in cases {
        assert_eq!(case["device"], "cpu");
        assert!(case["tokens_per_second"][0].as_f64().unwrap() > 0.0);
        let layers = case["executed_layers"].as_f64().unwrap();
        assert!(if case["policy"] == "full" { layers == 4.0 } else { (1.0..=4.0).contains(&layers) });
    }
}

#[test]
fn a_benchmark_on_a_device_is_one_of_libtorch() {
    let model = reference_checkpoint("v1_1");
    let complaint = |arguments: &[&str]| {
        let common = ["bench", "--model", model.to_str().unwrap()];
        crate::command::complaint(&calm(common.iter().chain(arguments), ""))
    };
    assert_eq!(complaint(&["--device", "gpu"]), "unknown device `gpu`: expected cpu, cuda or cuda:N");
    assert_eq!(complaint(&["--device", "cuda:0", "--engine", "cpu"]), "the CPU engine has no device cuda:0");
}

#[test]
fn random_weights_are_kept_for_other_runtimes() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let unknown = ["bench", "--model", "random:t5-huge"];
    assert_eq!(crate::command::complaint(&calm(unknown, "")), "no published shape is called t5-huge");
    let given = ["bench", "--model", folder.path().to_str().unwrap(), "--save", kept.to_str().unwrap()];
    assert_eq!(crate::command::complaint(&calm(given, "")), "--save is for random weights");
}
