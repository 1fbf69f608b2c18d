//! Files of what metrics compare.

use calm_data::{SegmentFormat, read_segments};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::path::Path;

use crate::readers::fixture;

const RECORDS: &str = "{\"text\": \"one\"}\n\n{\"text\": [\"two\", \"2\"]}\n";

pub(crate) fn gzipped(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[track_caller]
fn check(path: &Path, column: &str, format: SegmentFormat, expected: &[&[&str]]) {
    let segments = read_segments(path, column).unwrap();
    assert_eq!(segments.format, format, "{}", path.display());
    assert_eq!(segments.texts, expected, "{}", path.display());
}

#[test]
fn the_name_or_the_content_tells_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let records: &[&[&str]] = &[&["one"], &["two", "2"]];
    for name in ["a.jsonl", "a.JSONL", "a.json", "a.txt", "a", "63"] {
        check(&write(name, RECORDS.as_bytes()), "text", SegmentFormat::Records, records);
    }
    for name in ["a.jsonl.gz", "a.json.gz", "a.txt.gz", "a.gz", "a.txt", "a.jsonl"] {
        check(&write(name, &gzipped(RECORDS.as_bytes())), "text", SegmentFormat::Records, records);
    }
    let array = r#"[{"text": "one"}, {"text": ["two", "2"]}]"#;
    check(&write("array", array.as_bytes()), "text", SegmentFormat::Records, records);
    let nested = r#"{"meta": {"text": "one"}}"#;
    check(&write("nested", nested.as_bytes()), "meta.text", SegmentFormat::Records, &[&["one"]]);
    let renamed = write("renamed", &std::fs::read(fixture("questions.parquet")).unwrap());
    for path in [renamed, fixture("questions.parquet")] {
        check(&path, "answers.text", SegmentFormat::Records, &[&["The sea", "sea"], &["house"]]);
    }

    let text = "one\n\n{\"text\": \"two\"}\r\n";
    let lines: &[&[&str]] = &[&["one"], &[""], &["{\"text\": \"two\"}"]];
    check(&write("b.txt", text.as_bytes()), "text", SegmentFormat::Lines, lines);
    check(&write("b.txt.gz", &gzipped(text.as_bytes())), "text", SegmentFormat::Lines, lines);
    check(&write("numbers", b"1\n2\n"), "text", SegmentFormat::Lines, &[&["1"], &["2"]]);
    check(&write("empty", b""), "text", SegmentFormat::Lines, &[]);
    // A system may write JSON.
    let json = "{\"a\": 1}\n{\"b\": 2}\n";
    let lines: &[&[&str]] = &[&["{\"a\": 1}"], &["{\"b\": 2}"]];
    check(&write("json.txt", json.as_bytes()), "text", SegmentFormat::LinesOfJson, lines);
}

#[test]
fn errors() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, bytes: &[u8], expected: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = read_segments(&path, "text").unwrap_err().to_string();
        assert_eq!(error, format!("{}{expected}", path.display()));
    };
    check("a.txt", b"one\ntw\xffo\n", ":2:3: the text is not UTF-8");
    check("a.jsonl", b"{\"text\": \"a\"}\n\n{}\n", ":3: no column `text`; there are: ");
    check("some", b"{\"text\": \"a\"}\n{}\n", ":2: no column `text`; there are: ");
    check("b", b"{\"text\": 1}", ":1: column `text` should be a string or a list of strings, found a number");
    check("c.jsonl", b"{\"text\": \"a\", \"text\": \"b\"}", ":1:20: there are two keys `text`");
}
