//! `.json` files and compressed files.

use calm_data::{Columns, Example, read_examples};

use crate::readers::{check, columns, example, fixture, squad};
use crate::segments::gzipped;

#[track_caller]
fn check_text(text: &str, columns: &Columns, expected: Result<&[Example], &str>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.json");
    std::fs::write(&path, text).unwrap();
    check(&path, columns, expected);
}

#[test]
fn an_array_or_an_object_around_one_or_records_in_a_row() {
    let one = r#"{"source": "one", "target": "un"}"#;
    let two = r#"{"id": "b", "source": "two", "target": ["deux", "2"]}"#;
    let expected = [example("1", "one", &["un"]), example("b", "two", &["deux", "2"])];
    for text in [
        format!("[{one}, {two}]"),
        format!("\u{feff} [{one},\n{two}]\n"),
        format!(r#"{{"version": "0.1.0", "data": [{one}, {two}]}}"#),
        format!("{one}\n{two}\n"),
    ] {
        check_text(&text, &Columns::default(), Ok(&expected));
    }
    check_text(one, &Columns::default(), Ok(&expected[..1]));
    // Records that look like a wrapper or an article.
    check_text(
        r#"{"source": "one", "data": "un"}"#,
        &columns("source", "data"),
        Ok(&[example("1", "one", &["un"])]),
    );
    check_text(
        r#"[{"source": "one", "paragraphs": ["un"]}, {"source": "two", "paragraphs": [{"qas": 1}], "target": "x"}]"#,
        &columns("source", "paragraphs"),
        Err(":2: column `paragraphs` should be a string or a list of strings, found a struct"),
    );
}

/// The official files give the same examples as the files on the hub.
#[test]
fn squads_nested_file() {
    let hub = read_examples(fixture("questions.parquet"), &squad()).unwrap();
    check(&fixture("squad.json"), &squad(), Ok(&hub));
    let titles = Columns { context: None, prefix: String::new(), ..columns("title", "question") };
    check(
        &fixture("squad.json"),
        &titles,
        Ok(&[example("q1", "T", &["What is blue?"]), example("q2", "T", &["What is red?"])]),
    );
}

#[test]
fn gzip() {
    let news = columns("article", "highlights");
    let expected = [
        example("c0", "The sea rose. It fell.", &["Sea rises .\nSea falls ."]),
        example("c1", "A house burnt.", &["House burns ."]),
        example("c2", "Nothing new.", &["No news ."]),
    ];
    check(&fixture("articles.jsonl.gz"), &news, Ok(&expected));
    check(&fixture("articles.json.gz"), &news, Ok(&expected));
    // The content tells too, and upper case is as good.
    let folder = tempfile::tempdir().unwrap();
    for (name, from) in [
        ("a.jsonl", "articles.jsonl.gz"),
        ("a.JSON", "articles.json.gz"),
        ("a.JsonL.GZ", "articles.jsonl.gz"),
    ] {
        let path = folder.path().join(name);
        std::fs::copy(fixture(from), &path).unwrap();
        check(&path, &news, Ok(&expected));
    }
    // Parquet compresses its pages, not the file.
    check(&fixture("articles-00000-of-00002.parquet"), &news, Ok(&expected[..2]));
}

/// A short file can stand for text that fills the memory.
#[test]
fn compressed_text_has_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let text = [&b"{\"source\": \""[..], &vec![b'a'; 65 << 20], b"\", \"target\": \"b\"}\n"].concat();
    let compressed = gzipped(&text);
    let zstd = zstd::encode_all(text.as_slice(), 1).unwrap();
    // A frame of one empty block, which asks for a window of 2 GiB.
    let window = [&[0x28, 0xb5, 0x2f, 0xfd][..], &[0, (31 - 10) << 3], &[1, 0, 0]].concat();
    let too_long = " compressed bytes become more than 4 MiB, as no text does: decompress it if it is right";
    for (name, bytes, words, expected) in [
        ("plain.jsonl", &text, "", ":1: the line is longer than 64 MiB"),
        ("plain.csv", &text, "cannot read ", ": a row is longer than 64 MiB"),
        ("bomb.jsonl.gz", &compressed, "cannot read ", too_long),
        ("bomb.json.gz", &compressed, "cannot read ", too_long),
        ("bomb.csv.gz", &compressed, "cannot read ", too_long),
        ("bomb.tsv.zst", &zstd, "cannot read ", too_long),
        ("window.csv.zst", &window, "cannot read ", ": Frame requires too much memory for decoding"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let Err(error) = read_examples(&path, &Columns::default()) else { panic!("{name} is read") };
        let error = error.to_string();
        assert!(
            error.starts_with(&format!("{words}{}", path.display())) && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn errors() {
    let plain = Columns::default();
    check_text("", &plain, Err(": the dataset is empty"));
    check_text("[]", &plain, Err(": the dataset is empty"));
    check_text(r#"{"data": []}"#, &plain, Err(": the dataset is empty"));
    // An error in the JSON names the line and column of the text, any other error the record.
    check_text("[\n{\"source\" 1}]", &plain, Err(":2:11: expected `:`"));
    check_text("[{}]\n]", &plain, Err(":2:1: expected value"));
    // pyarrow refuses this too.
    check_text(
        "[{\"source\": \"a\",\n \"source\": \"b\"}]",
        &plain,
        Err(":2:9: there are two keys `source`"),
    );
    check_text(
        r#"[{"source": "one", "target": "un"}, {"source": 2, "target": "deux"}]"#,
        &plain,
        Err(":2: column `source` should be a string, found a number"),
    );
    check_text(
        r#"{"dataset": [{"source": "one"}]}"#,
        &plain,
        Err(":1: no column `source`; there are: dataset"),
    );
    // Answers of an unanswerable question of SQuAD 2.0, and an answer without its text.
    let article = |answers: &str| {
        format!(
            r#"{{"data": [{{"paragraphs": [{{"context": "C", "qas": [{{"question": "Q", "answers": {answers}}}]}}]}}]}}"#
        )
    };
    check_text(
        &article("[]"),
        &squad(),
        Err(
            ":1: column `answers.text` is an empty list, so that nothing counts as right; `without_reference = \
             \"leave-out\"` among the columns leaves such records out",
        ),
    );
    check_text(
        &article(r#"[{"answer_start": 0}]"#),
        &squad(),
        Err(":1: column `answers.text` should be a string or a list of strings, found null"),
    );
}
