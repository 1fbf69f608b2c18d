//! One clear error, exit code 1, no output, no panic.

use std::path::Path;

use calm_model::{read_safetensors, write_safetensors};
use tch::{Device, Tensor};

use crate::command::{
    calm, complaint, copied_checkpoint, generate, notes, reference_checkpoint, write_tokenizer,
};

const TOKENS: &str = "{\"input_ids\": [5, 6, 1]}\n";

#[track_caller]
fn check(model: &Path, arguments: &[&str], input: &str, expected: &str) {
    let found = complaint(&generate(model, arguments, input));
    assert!(found.contains(expected), "{found}\ninstead of {expected}");
}

#[test]
fn input_lines() {
    let model = reference_checkpoint("v1_1");
    let check = |input: &str, expected: &str| check(&model, &[], input, expected);
    check("", "standard input holds no line to generate for");
    check(&format!("{TOKENS}\n{{\"input_ids\": [5,\n"), "standard input:3:17: EOF while parsing");
    check(
        &format!("{TOKENS}{{\"text\": \"a\"}}\n"),
        "standard input:2: expected exactly one of source, prompt",
    );
    check(
        "{\"source\": \"a\", \"input_ids\": [5]}",
        "standard input:1: expected exactly one of source, prompt",
    );
    check(
        "{\"source\": \"a\"}",
        &format!(
            "standard input:1: a source, but {} holds no tokenizer.json, which texts need",
            model.display()
        ),
    );
    check("{\"input_ids\": []}", "standard input:1: the source has no tokens");
    check(
        "{\"input_ids\": [5, 211]}",
        "standard input:1: token 211 is not in the vocabulary, which ends at 211",
    );
    check("{\"input_ids\": [-1]}", "standard input:1:17: invalid value: integer `-1`");
    check(
        "7",
        "standard input:1:1: invalid type: integer `7`, expected an object with source, prompt, messages or input_ids",
    );
}

#[test]
fn files() {
    let model = reference_checkpoint("v1_1");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    check(&model, &["--input", &path("none.jsonl")], "", "none.jsonl: No such file");
    std::fs::write(path("bad.jsonl"), format!("{TOKENS}{{\"input_ids\"}}\n")).unwrap();
    check(&model, &["--input", &path("bad.jsonl")], "", "bad.jsonl:2:13: expected `:`");
    check(
        &model,
        &["--output", &path("bad.jsonl/out.jsonl")],
        TOKENS,
        "bad.jsonl/out.jsonl: not a directory",
    );
    if Path::new("/dev/full").exists() {
        check(&model, &["--output", "/dev/full"], TOKENS, "cannot write /dev/full: No space left on device");
    }
    // A mistake in the input leaves the output of an earlier run alone.
    std::fs::write(path("out.jsonl"), "earlier").unwrap();
    check(&model, &["--output", &path("out.jsonl")], "{}", "standard input:1: expected exactly one");
    assert_eq!(std::fs::read_to_string(path("out.jsonl")).unwrap(), "earlier");
}

#[test]
fn flags() {
    let model = reference_checkpoint("v1_1");
    let check = |arguments: &str, expected: &str| {
        check(&model, &arguments.split(' ').collect::<Vec<_>>(), TOKENS, expected);
    };
    for threshold in ["1.5", "-0.1", "nan"] {
        check(&format!("--policy calm --threshold {threshold}"), "threshold must be from 0 to 1, not ");
    }
    check("--policy calm --threshold 0.5 --decay -1", "decay must be a finite number not below 0, not -1");
    check(
        "--policy calm",
        "the policy calm needs a threshold: its form is calm-MEASURE-THRESHOLD[-tauDECAY]",
    );
    check("--policy static", "the policy static needs a number of layers: its form is static-LAYERS");
    check("--policy static --static-layers 0", "the policy static needs at least 1 layer");
    check(
        "--policy static --static-layers 5",
        "static depth must be from 1 to the decoder's 4 layers, not 5",
    );
    check("--policy full --threshold 0.5", "the policy full has no threshold");
    check("--policy full --measure state", "the policy full has no measure");
    check("--policy calm --threshold 0.5 --static-layers 2", "the policy calm has no number of layers");
    check("--policy calm --decay 4", "--decay needs --threshold");
    check(
        "--policy fast",
        "unknown policy `fast`: there are full, static, oracle, calm, patience, shallow-deep, shallow-deep-beta, \
         shallow-deep-published, self-speculative, shallow-cache, oracle-copied, perturbed-sampling and \
         perturbed-layer",
    );
    check("--policy calm-state", "a policy calm is written calm-MEASURE-THRESHOLD[-tauDECAY]");
    check("--policy static-5", "static depth must be from 1 to the decoder's 4 layers, not 5");
    check(
        "--policy calm-state-0.5 --threshold 0.4",
        "--threshold has no meaning beside the policy calm-state-0.5, which has its parameters",
    );
    check("--max-tokens 0", "--max-tokens is 0, but must be at least 1");
    check("--batch-size 0", "--batch-size is 0, but must be at least 1");
    check("--threads 0", "--threads is 0, but must be at least 1");
}

#[test]
fn devices() {
    let model = reference_checkpoint("v1_1");
    let model = model.to_str().unwrap();
    let complaint =
        |device| complaint(&calm(["generate", "--model", model, "--input", "-", "--device", device], TOKENS));
    assert_eq!(complaint("gpu"), "unknown device `gpu`: expected cpu, cuda or cuda:N");
    let missing = complaint("cuda:99");
    assert!(
        missing.starts_with("CUDA is not available") || missing.contains("cuda:99 does not exist"),
        "{missing}"
    );
}

#[test]
fn checkpoints() {
    let model = copied_checkpoint();
    let (weights, config) = (model.path().join("model.safetensors"), model.path().join("config.json"));
    let check = |arguments: &[&str], expected: &str| check(model.path(), arguments, TOKENS, expected);
    let bytes = std::fs::read(&weights).unwrap();
    let edit = |name: &str, tensor: Option<Tensor>| {
        std::fs::write(&weights, &bytes).unwrap();
        let mut tensors = read_safetensors(&weights, Device::Cpu).unwrap();
        match tensor {
            Some(tensor) => tensors.insert(name.to_owned(), tensor),
            None => tensors.remove(name),
        };
        write_safetensors(&weights, tensors).unwrap();
    };
    edit("calm.classifier.weight", None);
    check(
        &["--policy", "calm", "--measure", "classifier", "--threshold", "0.5"],
        "the classifier measure needs an exit classifier, and the model has none",
    );
    edit("shared.weight", Some(Tensor::from_slice(&[1f32, 2.0])));
    check(&[], "tensor shared.weight has the shape [2], but config.json asks for [211, 32]");
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    check(&[], "model.safetensors is not a valid safetensors file");
    std::fs::remove_file(&weights).unwrap();
    check(&[], "holds neither model.safetensors nor model.safetensors.index.json");
    std::fs::write(&weights, &bytes).unwrap();

    let tokenizer = model.path().join("tokenizer.json");
    std::fs::write(&tokenizer, "{}").unwrap();
    check(&[], "tokenizer.json: ");
    write_tokenizer(&tokenizer);
    // Text that the tokenizer knows nothing of is no mistake.
    let output =
        generate(model.path(), &["--max-tokens", "2"], "{\"source\": \"漢字\"}\n{\"source\": \"\"}\n");
    assert_eq!(crate::command::printed(output).lines().count(), 2);

    std::fs::write(&config, "{\"d_model\": 32").unwrap();
    check(&[], "config.json: EOF while parsing an object");
    std::fs::remove_file(&config).unwrap();
    check(&[], "config.json: No such file");
}

#[test]
fn other_commands() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let check = |arguments: &[&str], expected: &str| {
        let found = complaint(&calm(arguments, ""));
        assert!(found.contains(expected), "{found}\ninstead of {expected}");
    };
    check(&["train", &path("none.toml")], "none.toml: No such file");
    std::fs::write(path("run.toml"), "seed = 1\ncolour = 2\n").unwrap();
    check(&["train", &path("run.toml")], "run.toml:2: colour: unknown field `colour`");
    let overridden = ["train", &path("run.toml"), "--set", "colour=red"];
    check(&overridden, "--set colour=red: colour: unknown field `colour`");
    check(&["data", "debian", "--lists", &path("none"), "--out", &path("data")], "none: No such file");
    // Indices of one package are read, and are too little for the corpus.
    std::fs::create_dir(path("lists")).unwrap();
    for (index, text) in [
        ("mirror_dists_bookworm_main_binary-amd64_Packages", "Package: viewer\nDescription-md5: 1\n\n"),
        (
            "mirror_dists_bookworm_main_i18n_Translation-en",
            "Package: viewer\nDescription-md5: 1\nDescription-en: a viewer\n It shows.\n\n",
        ),
        (
            "mirror_dists_bookworm_main_i18n_Translation-fr",
            "Package: viewer\nDescription-md5: 1\nDescription-fr: visionneur\n Il montre.\n\n",
        ),
    ] {
        std::fs::write(path(&format!("lists/{index}")), text).unwrap();
    }
    let overridden = ["train", &path("run.toml"), "--set", "colour=red"];
    check(&overridden, "--set colour=red: colour: unknown field `colour`");
    check(&["data", "debian", "--lists", &path("lists"), "--out", &path("data")], "examples for a ");
}

/// Mistakes in the form of a command are clap's: usage and exit code 2.
#[test]
fn usage() {
    for arguments in [
        &["generate", "--input", "-"][..],
        &["generate", "--model", "m", "--input", "-", "--measure", "entropy"],
    ] {
        let output = calm(arguments, "");
        let error = notes(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.starts_with("error: ") && !error.contains("panicked"), "{error}");
    }
}
