//! The binary with a tiny T5 of random weights.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use assert_cmd::cargo::CommandCargoExt;
use serde_json::json;
use tempfile::TempDir;

use crate::configuration::VALID;

pub(crate) struct Folder(TempDir);

impl Folder {
    /// Model, tokenizer, two datasets and a configuration.
    pub(crate) fn new() -> Self {
        let folder = Self(TempDir::new().unwrap());
        let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../calm-model/tests/reference/v1_1");
        fs::create_dir(folder.path("model")).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(reference.join(file), folder.path("model").join(file)).unwrap();
        }
        fs::write(folder.path("model/tokenizer.json"), tokenizer().to_string()).unwrap();
        for (split, first) in [("test", 0), ("calibration", 50)] {
            let lines = (first..first + 24).map(|index: usize| {
                let words = (0..2 + index % 7).map(|word| format!("t{}", 3 + (index * 37 + word * 61) % 208));
                let text = words.collect::<Vec<_>>().join(" ");
                format!("{}\n", json!({"id": index, "source": text, "target": text}))
            });
            fs::write(folder.path(&format!("{split}.jsonl")), lines.collect::<String>()).unwrap();
        }
        fs::write(folder.path("trial.toml"), VALID.replace("models/none", "model")).unwrap();
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program with these arguments, of which the first may be the name of a command.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::cargo_bin("calm-experiments").unwrap();
        let names = arguments.iter().take_while(|argument| !argument.starts_with('-')).count();
        let (name, flags) = arguments.split_at(names);
        command.current_dir(self.0.path()).args(name).arg("trial.toml").args(flags);
        if !arguments.contains(&"--device") {
            command.args(["--device", "cpu"]);
        }
        command
    }

    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The error's lines, of which there must be few, with the exit code 1.
    pub(crate) fn fail(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        // What decodes may stand before it.
        let begin = said.find("error: ").unwrap();
        let errors = said[begin..].to_owned();
        assert!(said[..begin].lines().count() <= 1 && errors.lines().count() <= 3, "{said}");
        assert!(!errors.contains("panicked") && output.stdout.is_empty(), "{errors}");
        errors
    }

    /// All tables without the columns that depend on time.
    pub(crate) fn tables(&self, out: &str) -> String {
        let mut text = String::new();
        for (name, timed) in
            [("sweep.csv", &[12, 13][..]), ("calibration.csv", &[15]), ("trials.csv", &[25, 26])]
        {
            for line in fs::read_to_string(self.path(out).join(name)).unwrap().lines().skip(1) {
                let cells = line.split(',').enumerate().filter(|(column, _)| !timed.contains(column));
                text += &cells.map(|(_, cell)| cell).collect::<Vec<_>>().join(",");
                text.push('\n');
            }
        }
        text
    }
}

/// A word for each of the model's 211 tokens.
fn tokenizer() -> serde_json::Value {
    let special = ["<pad>", "</s>", "<unk>"];
    let words = (3..211).map(|id| (format!("t{id}"), id));
    let vocab: serde_json::Map<_, _> = special
        .iter()
        .enumerate()
        .map(|(id, word)| ((*word).to_owned(), id))
        .chain(words)
        .map(|(word, id)| (word, id.into()))
        .collect();
    let added = special.iter().enumerate().map(|(id, word)| {
        json!({"id": id, "content": word, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false})
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}
        },
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
    })
}

#[test]
fn runs_are_equal_on_any_number_of_threads_and_after_a_kill() {
    let folder = Folder::new();
    let printed = folder.succeed(&["--threads", "1"]);
    assert!(printed.contains("full model") && printed.contains("runs/trial/sweep.csv"), "{printed}");
    let tables = folder.tables("runs/trial");

    folder.succeed(&["--threads", "2", "--out", "two"]);
    assert_eq!(folder.tables("two"), tables);

    let mut child = folder
        .command(&["--threads", "2", "--out", "killed"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Long enough for some units, not for all.
    while !folder.path("killed/generations/test/static-3").exists() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!folder.path("killed/sweep.csv").exists());
    folder.succeed(&["--threads", "1", "--out", "killed"]);
    assert_eq!(folder.tables("killed"), tables);

    fs::remove_dir_all(folder.path("two/generations/calibration/full")).unwrap();
    fs::remove_file(folder.path("two/generations/test/oracle/shard-0001.jsonl")).unwrap();
    assert!(folder.fail(&["collect", "--out", "two"]).contains("cannot read two/generations/"));
    folder.succeed(&["--out", "two"]);
    assert_eq!(folder.tables("two"), tables);
    folder.succeed(&["collect", "--out", "two"]);
    assert_eq!(folder.tables("two"), tables);
}

/// What decoded the files is the configuration's model, with the arithmetic that flags name.
#[test]
fn statistics_are_those_of_the_model_that_decoded() {
    let folder = Folder::new();
    folder.succeed(&[]);
    let tables = folder.tables("runs/trial");
    fn again<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        [&["collect"], arguments].concat()
    }
    for arguments in
        [&["--dtype", "bf16"][..], &["--dtype", "int8"], &["--engine", "libtorch"], &["--device", "cuda"]]
    {
        let error = folder.fail(&again(arguments));
        assert!(error.contains(" is not what has decoded: that was cpu f32"), "{error}");
    }
    folder.succeed(&again(&["--dtype", "f32", "--engine", "cpu"]));

    fs::create_dir(folder.path("other")).unwrap();
    for entry in fs::read_dir(folder.path("model")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path("other").join(path.file_name().unwrap())).unwrap();
    }
    // The same files under another name are the same model.
    folder.succeed(&again(&["--set", "model=other"]));
    let config = fs::read_to_string(folder.path("other/config.json")).unwrap() + "\n";
    fs::write(folder.path("other/config.json"), config).unwrap();
    let error = folder.fail(&again(&["--set", "model=other"]));
    assert!(error.contains("the files were not decoded by other as it is now"), "{error}");
    let error = folder.fail(&again(&["--set", "model=absent"]));
    assert!(error.contains("the files were decoded by model, and absent is not there"), "{error}");
    fs::remove_dir_all(folder.path("model")).unwrap();
    folder.succeed(&again(&[]));
    assert_eq!(folder.tables("runs/trial"), tables);
}

#[test]
fn the_table_is_printed_even_if_files_cannot_be_written() {
    let folder = Folder::new();
    folder.succeed(&[]);
    fs::remove_file(folder.path("runs/trial/sweep.csv")).unwrap();
    fs::create_dir(folder.path("runs/trial/sweep.csv")).unwrap();
    let output = folder.command(&["collect"]).output().unwrap();
    let (printed, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        printed.contains("full model") && error.contains("cannot write runs/trial/sweep.csv"),
        "{printed}{error}"
    );
}

#[test]
fn another_run_needs_another_folder_or_permission() {
    let folder = Folder::new();
    folder.succeed(&[]);
    let tables = folder.tables("runs/trial");
    for arguments in [&["--dtype", "bf16"][..], &["--set", "decode.max_tokens=5"]] {
        let error = folder.fail(arguments);
        assert!(error.contains("is of a finished run with another "), "{error}");
        assert_eq!(folder.tables("runs/trial"), tables);
    }
    folder.succeed(&["--set", "decode.max_tokens=5", "--overwrite"]);
    assert_ne!(folder.tables("runs/trial"), tables);
}

#[test]
fn fewer_examples_than_asked_for_are_told() {
    let folder = Folder::new();
    let output = folder.command(&["--set", "data.test_examples=1000"]).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let expected =
        "warning: test.jsonl: 1000 examples are asked for, but there are only 24, and all are taken\n";
    assert!(errors.contains(expected), "{errors}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_that_is_told_to_end_says_how_to_go_on_and_a_full_disk_is_told_last() {
    use std::os::unix::process::ExitStatusExt;
    let folder = Folder::new();
    let mut child =
        folder.command(&["--threads", "2"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !folder.path("runs/trial/generations/test/static-1").exists() && child.try_wait().unwrap().is_none()
    {
        std::thread::yield_now();
    }
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.signal(), Some(15), "{said}");
    assert!(
        said.ends_with(
            "interrupted by SIGTERM; what was decoded stays, and the same command goes on from there\n"
        ),
        "{said}"
    );
    let find = Command::new("find").arg(folder.path("runs")).args(["-name", "*.partial"]).output().unwrap();
    assert_eq!(String::from_utf8(find.stdout).unwrap(), "");

    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let output = folder.command(&[]).stdout(full()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.ends_with("error: cannot write standard output: No space left on device (os error 28)\n"),
        "{said}"
    );
    for file in ["sweep.csv", "calibration.csv", "trials.csv", "summary.json", "plots"] {
        assert!(folder.path("runs/trial").join(file).exists(), "{file}");
    }
    let status = folder.command(&["collect"]).stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = folder.command(&["collect"]).stdout(writer).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn overrides_reach_the_run() {
    let folder = Folder::new();
    folder.succeed(&[
        "--set",
        "name=other",
        "--set",
        "data.test_examples=7",
        "--set",
        "sweep.measures=['softmax']",
    ]);
    let sweep = fs::read_to_string(folder.path("runs/other/sweep.csv")).unwrap();
    // Full, four depths, oracle, four thresholds.
    assert_eq!(sweep.lines().count(), 1 + 1 + 4 + 1 + 4);
    assert!(sweep.lines().nth(1).unwrap().starts_with("full,,,,,,7,"), "{sweep}");
}

// What is wrong with a configuration is tested without the binary, each start of which takes half a second.
#[test]
fn bad_input_gives_one_clear_error() {
    let folder = Folder::new();
    let check = |arguments: &[&str], expected: &str| {
        let error = folder.fail(arguments);
        assert!(error.contains(expected), "{error}\n{expected}");
    };
    check(
        &["--set", "sweep.thresholds=[1.2]"],
        "sweep.thresholds[0]: threshold must be from 0 to 1, not 1.2",
    );
    check(&["--set", "data.test=absent.jsonl"], "absent.jsonl: No such file");
    fs::write(folder.path("empty.jsonl"), "").unwrap();
    check(&["--set", "data.calibration=empty.jsonl"], "empty.jsonl: the dataset is empty");
    fs::write(folder.path("broken.jsonl"), "{\"source\": \"t5\", \"target\": \"t5\"}\n{\"source\": \n")
        .unwrap();
    check(&["--set", "data.test=broken.jsonl"], "broken.jsonl:2");
    check(&["--set", "model=absent"], "absent/config.json");
    check(&["--threads", "1000000"], "--threads is 1000000, but must be at most ");
    check(&["--threads", "0"], "--threads is 0, but must be at least 1");
    check(
        &["--out", "trial.toml/out"],
        "cannot write trial.toml/out/generations/test/full/shard-0000.jsonl: ",
    );
    let without_libtorch = "this program was built without libtorch";
    check(
        &["--device", "tpu"],
        if cfg!(feature = "libtorch") { "unknown device `tpu`" } else { without_libtorch },
    );
    check(&["collect"], "runs/trial/generations/test/full/shard-0000.jsonl");

    let weights = folder.path("model/model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    check(&[], "model.safetensors is not a valid safetensors file");
    fs::remove_file(&weights).unwrap();
    check(&[], "model.safetensors");
    fs::write(&weights, &bytes).unwrap();
    fs::remove_file(folder.path("model/tokenizer.json")).unwrap();
    check(&[], "tokenizer.json");

    fs::write(folder.path("trial.toml"), "name = \"x\"\nmodle = \"y\"\n").unwrap();
    check(&[], "trial.toml:2: modle: unknown field `modle`");
    fs::remove_file(folder.path("trial.toml")).unwrap();
    check(&[], "cannot read trial.toml");
}
