//! Starting the command, and checkpoints and files for it.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Runs `calm` with these arguments and this standard input.
pub(crate) fn calm<A: AsRef<std::ffi::OsStr>>(
    arguments: impl IntoIterator<Item = A>,
    input: impl Into<Vec<u8>>,
) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_calm"));
    command.env("OMP_WAIT_POLICY", "PASSIVE").args(arguments).write_stdin(input).output().unwrap()
}

/// `calm generate` on the CPU, so that the tests mean the same on every machine.
pub(crate) fn generate(model: &Path, arguments: &[&str], input: &str) -> Output {
    let common = ["generate", "--device", "cpu", "--model", model.to_str().unwrap()];
    let from_stdin: &[&str] = if arguments.contains(&"--input") { &[] } else { &["--input", "-"] };
    calm([&common, from_stdin, arguments].concat(), input)
}

/// What a command said on standard error, but for the line that says what decodes.
pub(crate) fn notes(error: &[u8]) -> String {
    let is_introduction = |line: &&str| {
        line.contains(" decoder layers, ") && (line.ends_with(" thread") || line.ends_with(" threads"))
    };
    let said = String::from_utf8(error.to_vec()).unwrap();
    said.lines().filter(|line| !is_introduction(line)).map(|line| format!("{line}\n")).collect()
}

/// What a successful command printed.
#[track_caller]
pub(crate) fn printed(output: Output) -> String {
    let error = notes(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{:?}: {error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// What a command said before it failed: a line for the error, and one for each of its causes.
#[track_caller]
pub(crate) fn complaint(output: &Output) -> String {
    let error = notes(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(output.stdout.is_empty(), "{:?}", String::from_utf8_lossy(&output.stdout));
    // What a long command has begun may stand before it.
    let mut lines =
        error.lines().skip_while(|line| line.starts_with("fetching ") || line.starts_with("reading "));
    let first = lines.next().and_then(|line| line.strip_prefix("error: ")).expect("an error");
    let causes = lines.map(|line| line.strip_prefix("  because: ").expect("a cause"));
    [first].into_iter().chain(causes).collect::<Vec<_>>().join(": ")
}

/// A checkpoint that the model's own tests use as a reference.
pub(crate) fn reference_checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../calm-model/tests/reference").join(name)
}

/// A copy of the v1.1 reference checkpoint, to be changed.
pub(crate) fn copied_checkpoint() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(reference_checkpoint("v1_1").join(file), folder.path().join(file)).unwrap();
    }
    folder
}

/// A copy of a small Llama with a tokenizer of the words `t0` to `t223`, which puts `<s>` before a text.
pub(crate) fn llama_with_tokenizer() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "generation_config.json", "model.safetensors"] {
        std::fs::copy(reference_checkpoint("llama_gqa_tied").join(file), folder.path().join(file)).unwrap();
    }
    let names = ["t0", "<s>", "</s>"].map(str::to_owned).into_iter();
    let names = names.chain((3..224).map(|token| format!("t{token}")));
    let vocab: serde_json::Map<String, Value> = names.zip((0..).map(Value::from)).collect();
    let special = |id: u32, content: &str| {
        let flags =
            ["single_word", "lstrip", "rstrip", "normalized"].map(|flag| (flag.to_owned(), false.into()));
        let mut token = serde_json::Map::from_iter(flags);
        token.extend([("id".to_owned(), json!(id)), ("content".to_owned(), json!(content))]);
        token.insert("special".to_owned(), true.into());
        token
    };
    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let begin = json!({ "SpecialToken": { "id": "<s>", "type_id": 0 } });
    let template = json!({
        "type": "TemplateProcessing",
        "single": [begin, text],
        "pair": [begin, text, { "Sequence": { "id": "B", "type_id": 0 } }],
        "special_tokens": { "<s>": { "id": "<s>", "ids": [1], "tokens": ["<s>"] } },
    });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(1, "<s>"), special(2, "</s>")],
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": template,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "t0" },
    });
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

pub(crate) const NUMBERS: [(&str, &str); 10] = [
    ("one", "un"),
    ("two", "deux"),
    ("three", "trois"),
    ("four", "quatre"),
    ("five", "cinq"),
    ("six", "six"),
    ("seven", "sept"),
    ("eight", "huit"),
    ("nine", "neuf"),
    ("ten", "dix"),
];

/// Writes a tokenizer of 35 tokens that knows the numbers up to ten.
pub(crate) fn write_tokenizer(path: &Path) {
    let texts: Vec<(&str, u32)> =
        NUMBERS.iter().flat_map(|&(english, french)| [(english, 1), (french, 1)]).collect();
    calm_data::tokenizer::save(&calm_data::tokenizer::train(&texts, 35).unwrap(), path).unwrap();
}
