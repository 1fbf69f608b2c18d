//! Starting the command, and checkpoints and files for it.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
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

/// What a successful command printed.
#[track_caller]
pub(crate) fn printed(output: Output) -> String {
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && error.is_empty(), "{:?}: {error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// What a command said before it failed: a line for the error, and one for each of its causes.
#[track_caller]
pub(crate) fn complaint(output: &Output) -> String {
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(output.stdout.is_empty(), "{:?}", String::from_utf8_lossy(&output.stdout));
    let mut lines = error.lines();
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
