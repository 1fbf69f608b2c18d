//! What `calm generate` reads: files of any format, streams, and keys that are the caller's.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{
    NUMBERS, calm, complaint, copied_checkpoint, generate, notes, printed, write_tokenizer,
};

struct Folder(TempDir);

impl Folder {
    /// A checkpoint with a tokenizer.
    fn new() -> Self {
        let model = copied_checkpoint();
        write_tokenizer(&model.path().join("tokenizer.json"));
        Self(model)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).unwrap();
        self.path(name).display().to_string()
    }

    fn generate(&self, input: &str, flags: &[&str]) -> Vec<Value> {
        let arguments = [&["--input", input, "--max-tokens", "5"], flags].concat();
        let printed = printed(generate(self.0.path(), &arguments, ""));
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn compressed(program: &str, content: &str) -> Vec<u8> {
    let mut child =
        Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
    child.wait_with_output().unwrap().stdout
}

/// The same records in every format give the same texts, and other keys come back.
#[test]
fn every_format_is_read_and_other_keys_come_back() {
    let folder = Folder::new();
    let records = NUMBERS.iter().enumerate().map(
        |(index, (english, french))| json!({"id": format!("n{index}"), "source": english, "target": french}),
    );
    let records: Vec<Value> = records.collect();
    let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
    let cells = |delimiter: &str| {
        let rows = records.iter().map(|record| {
            ["id", "source", "target"].map(|key| record[key].as_str().unwrap().to_owned()).join(delimiter)
                + "\n"
        });
        ["id", "source", "target"].join(delimiter) + "\n" + &rows.collect::<String>()
    };
    let expected = folder.generate(&folder.write("a.jsonl", &lines), &[]);
    assert_eq!(expected.len(), NUMBERS.len());
    for (line, record) in expected.iter().zip(&records) {
        assert_eq!((&line["id"], &line["target"]), (&record["id"], &record["target"]));
        assert!(line.get("source").is_none() && line["text"].is_string(), "{line}");
    }
    for (name, content) in [
        ("a.json", json!(records).to_string().into_bytes()),
        ("a.csv", cells(",").into_bytes()),
        ("a.tsv", cells("\t").into_bytes()),
        ("marked.csv", format!("\u{feff}{}", cells(",")).into_bytes()),
        ("a.jsonl.gz", compressed("gzip", &lines)),
        ("a.csv.gz", compressed("gzip", &cells(","))),
    ] {
        assert_eq!(folder.generate(&folder.write(name, content), &[]), expected, "{name}");
    }
}

#[test]
fn sources_have_other_names_and_contexts() {
    let folder = Folder::new();
    let plain = folder.write("plain.jsonl", "{\"source\": \"one context: two\"}\n");
    let expected = &folder.generate(&plain, &[])[0]["tokens"].clone();
    let nested = folder.write("nested.jsonl", "{\"a\": {\"en\": \"one\"}, \"b\": \"two\", \"n\": 1.50}\n");
    let flags = ["--source-column", "a.en", "--context-column", "b"];
    let found = &folder.generate(&nested, &flags)[0];
    assert_eq!((&found["tokens"], &found["n"]), (expected, &json!(1.5)));
    let csv = folder.write("other.csv", "b,question\ntwo,one\n");
    let found = &folder.generate(&csv, &["--source-column", "question", "--context-column", "b"])[0];
    assert_eq!((&found["tokens"], &found["b"]), (expected, &json!("two")));
    for (file, flags, error) in [
        (&nested, &["--source-column", "a.fr"][..], "nested.jsonl:1: no column `a.fr`"),
        (&nested, &["--source-column", "n"], "nested.jsonl:1: column `n` is no text"),
        (&csv, &[], "other.csv:2: expected exactly one of source, prompt, messages and input_ids"),
    ] {
        let flags = [&["--input", file.as_str()], flags].concat();
        let found = complaint(&generate(folder.0.path(), &flags, ""));
        assert!(found.contains(error), "{found}\ninstead of {error}");
    }
    for (content, error) in [
        ("a,a\n1,2\n", "two columns are named `a`"),
        ("a,b\n1\n", "bad.csv:2: 1 cells, but the first line has 2"),
        ("source\n\u{fffd}", "bad.csv:2: the text is not UTF-8"),
    ] {
        let bytes: Vec<u8> =
            content.replace('\u{fffd}', "#").bytes().map(|b| if b == b'#' { 0xff } else { b }).collect();
        let file = folder.write("bad.csv", bytes);
        let found = complaint(&generate(folder.0.path(), &["--input", &file], ""));
        assert!(found.contains(error), "{found}\ninstead of {error}");
    }
}

/// A line of a stream is answered before the next one comes.
#[test]
fn a_stream_is_answered_line_by_line() {
    let folder = Folder::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_calm"))
        .args(["generate", "--device", "cpu", "--max-tokens", "3", "--input", "-", "--model"])
        .arg(folder.0.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    for (id, (english, _)) in NUMBERS.iter().enumerate() {
        writeln!(input, "{}", json!({"id": id, "source": english})).unwrap();
        input.flush().unwrap();
        let answer: Value = serde_json::from_str(&output.next().unwrap().unwrap()).unwrap();
        assert_eq!(answer["id"], id);
    }
    drop(input);
    assert!(output.next().is_none());
    assert!(child.wait().unwrap().success());
}

#[test]
fn sources_longer_than_those_of_training_are_told() {
    let folder = Folder::new();
    folder.write("training.json", json!({"config": {"data": {"max_source_tokens": 4}}}).to_string());
    let long = "{\"source\": \"one two three four five six seven\"}\n";
    let input = folder.write("long.jsonl", format!("{{\"source\": \"one\"}}\n{long}{long}"));
    let run = |flags: &[&str]| {
        let output = generate(Path::new(folder.0.path()), &[&["--input", &input], flags].concat(), "");
        assert!(output.status.success());
        notes(&output.stderr)
    };
    let said = run(&[]);
    assert!(
        said.starts_with("warning: 2 sources are longer than the 4 tokens that the model was trained with"),
        "{said}"
    );
    assert!(
        said.contains("the first one in line 2") && said.ends_with("--max-source-tokens 4 cuts them\n"),
        "{said}"
    );
    assert_eq!(run(&["--max-source-tokens", "4"]), "");
}

/// The bundled test split is generated for and scored without any other program.
#[test]
fn texts_for_parquet_are_scored_against_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = tempfile::tempdir().unwrap();
    let texts = folder.path().join("texts.jsonl");
    let data = root.join("data/translation/test.parquet").display().to_string();
    let rows = calm_data::read_rows(Path::new(&data)).unwrap();
    let small = folder.path().join("small.parquet");
    calm_data::write_rows(&small, &rows[..20]).unwrap();
    let [small, texts] = [&small, &texts].map(|path| path.display().to_string());
    let flags = ["--input", &small, "--output", &texts, "--max-tokens", "40", "--max-source-tokens", "80"];
    printed(generate(&root.join("models/debian-en-fr"), &flags, ""));
    let score = |references: &str| {
        let files = ["score", "-b", "--metric", "chrf", "--hypotheses", &texts, "--references", references];
        printed(calm(files, ""))
    };
    assert_eq!(score(&small), score(&texts));
    assert!(score(&small).trim().parse::<f64>().unwrap() > 40.0);
}
