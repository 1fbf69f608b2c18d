use calm_data::{Columns, Example, JsonLines, Row, WithoutReference, read_examples, read_rows, write_rows};
use proptest::prelude::*;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub(crate) fn example(id: &str, source: &str, references: &[&str]) -> Example {
    Example {
        id: id.to_owned(),
        source: source.to_owned(),
        target: references[0].to_owned(),
        references: references.iter().map(|&text| text.to_owned()).collect(),
        chat: false,
        group: None,
    }
}

pub(crate) fn columns(source: &str, target: &str) -> Columns {
    Columns { source: source.to_owned(), target: target.to_owned(), ..Columns::default() }
}

pub(crate) fn squad() -> Columns {
    Columns {
        context: Some("context".to_owned()),
        prefix: "question: ".to_owned(),
        ..columns("question", "answers.text")
    }
}

#[track_caller]
fn check_lines(lines: &str, columns: &Columns, expected: Result<&[Example], &str>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.jsonl");
    std::fs::write(&path, lines).unwrap();
    check(&path, columns, expected);
}

/// Expects these examples, or an error with this message behind the path, before which there may be words.
#[track_caller]
pub(crate) fn check(path: &Path, columns: &Columns, expected: Result<&[Example], &str>) {
    match (read_examples(path, columns), expected) {
        (Ok(examples), expected) => assert_eq!(Ok(examples.as_slice()), expected),
        (Err(error), expected) => {
            let message = error.to_string();
            let (words, message) = message.split_once(&*path.to_string_lossy()).expect("the path is named");
            assert!(["", "cannot read "].contains(&words), "{words}");
            assert_eq!(Err(message), expected);
        }
    }
}

#[test]
fn json_lines_columns() {
    let plain = Columns::default();
    check_lines(
        "{\"id\": \"a\", \"source\": \"one\", \"target\": \"un\"}\n\n  \n{\"id\": 12, \"source\": \"two\", \"target\": [\"deux\", \"2\"]}",
        &plain,
        Ok(&[example("a", "one", &["un"]), example("12", "two", &["deux", "2"])]),
    );
    // The byte order mark that some editors put in front of UTF-8 is skipped.
    check_lines(
        "\u{feff}{\"source\": \"one\", \"target\": \"un\"}",
        &plain,
        Ok(&[example("1", "one", &["un"])]),
    );
    // Without a column of ids the number of the record is the id, wherever lines are empty.
    check_lines(
        "\n{\"source\": \"one\", \"target\": \"un\"}\r\n\n \n{\"source\": \"two\", \"target\": \"deux\"}",
        &Columns { prefix: "say: ".to_owned(), ..plain.clone() },
        Ok(&[example("1", "say: one", &["un"]), example("2", "say: two", &["deux"])]),
    );
    check_lines(
        "{\"translation\": {\"en\": \"one\", \"fr\": \"un\"}, \"key\": \"k\"}",
        &Columns { id: Some("key".to_owned()), ..columns("translation.en", "translation.fr") },
        Ok(&[example("k", "one", &["un"])]),
    );
    // A name with a dot is looked up as it is before the dot leads into a struct.
    check_lines(
        "{\"a.b\": \"one\", \"c\": \"un\"}",
        &columns("a.b", "c"),
        Ok(&[example("1", "one", &["un"])]),
    );
    check_lines(
        "{\"question\": \"Q\", \"context\": \"C\", \"answers\": {\"text\": [\"A\", \"B\"], \"start\": [0, 1]}}",
        &squad(),
        Ok(&[example("1", "question: Q context: C", &["A", "B"])]),
    );
    let by_page = Columns { group: Some("page.number".to_owned()), ..Columns::default() };
    check_lines(
        "{\"source\": \"one\", \"target\": \"un\", \"page\": {\"number\": 7}}",
        &by_page,
        Ok(&[Example { group: Some("7".to_owned()), ..example("1", "one", &["un"]) }]),
    );
    check_lines(
        "{\"source\": \"one\", \"target\": \"un\", \"page\": {\"number\": null}}",
        &by_page,
        Err(":1: column `page.number` should be a string or an integer, found null"),
    );
    // Numbers lead into lists.
    let messages = Columns { chat: true, ..columns("messages.0.content", "messages.1.content") };
    check_lines(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"Q\"}, {\"content\": \"A\"}]}",
        &messages,
        Ok(&[Example { chat: true, ..example("1", "Q", &["A"]) }]),
    );
    check_lines(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"Q\"}]}",
        &messages,
        Err(":1: no column `messages.1.content`; there are: messages"),
    );
}

#[test]
fn json_lines_errors() {
    let plain = Columns::default();
    let good = "{\"source\": \"one\", \"target\": \"un\"}\n";
    let check = |line: &str, expected: &str| check_lines(&format!("{good}\n{line}"), &plain, Err(expected));
    check("{\"source\": \"one\", \"target\"", ":3:26: EOF while parsing an object");
    check("{\"source\": \"one\", \"target\"\n", ":3:26: EOF while parsing an object");
    check("{'source': 1}", ":3:2: key must be a string");
    check("{\"source\": \"one\"} x", ":3:19: trailing characters");
    check(
        "{\"source\": \"one\", \"meta\": {\"fr\": \"un\"}, \"id\": 1}",
        ":3: no column `target`; there are: id, meta.fr, source",
    );
    check("{\"source\": 1, \"target\": \"un\"}", ":3: column `source` should be a string, found a number");
    check(
        "{\"source\": [], \"target\": \"un\"}",
        ":3: column `source` should be a string, found an empty list",
    );
    let list = "a string or a list of strings";
    for (value, found) in [
        ("null", "null"),
        ("true", "a boolean"),
        ("{\"fr\": \"un\"}", "a struct"),
        ("[\"un\", [\"deux\"]]", "a list"),
    ] {
        check(
            &format!("{{\"source\": \"one\", \"target\": {value}}}"),
            &format!(":3: column `target` should be {list}, found {found}"),
        );
    }
    check(
        "{\"source\": \"one\", \"target\": []}",
        ":3: column `target` is an empty list, so that nothing counts as right; `without_reference = \"leave-out\"` among \
         the columns leaves such records out",
    );
    check(
        "{\"id\": 1.5, \"source\": \"one\", \"target\": \"un\"}",
        ":3: column `id` should be a string or an integer, found a number",
    );
    check("[1]", ":3: no column `source`; there are: ");
    check_lines("", &plain, Err(": the dataset is empty"));
    check_lines("\n \n", &plain, Err(": the dataset is empty"));
}

#[test]
fn file_errors() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["missing.jsonl", "missing.parquet"] {
        check(
            &folder.path().join(name),
            &Columns::default(),
            Err(": No such file or directory (os error 2)"),
        );
    }
    let format = ": expected a file whose name ends in .parquet, .jsonl, .json, .csv or .tsv, or these with .gz or .zst";
    for name in ["file.txt", "file", "file.gz", "file.parquet.gz", "json"] {
        check(&folder.path().join(name), &Columns::default(), Err(format));
    }
    check(folder.path(), &Columns::default(), Err(format));
    let plain = folder.path().join("plain.jsonl.gz");
    std::fs::write(&plain, "{\"source\": \"one\"}").unwrap();
    check(&plain, &Columns::default(), Err(": invalid gzip header"));

    let truncated = folder.path().join("truncated.parquet");
    let whole = std::fs::read(fixture("questions.parquet")).unwrap();
    std::fs::write(&truncated, &whole[..whole.len() / 2]).unwrap();
    check(&truncated, &squad(), Err(": Parquet error: Invalid Parquet file. Corrupt footer"));
}

#[test]
fn parquet_columns() {
    let prefix = "translate English to French: ";
    check(
        &fixture("translation.parquet"),
        &Columns { prefix: prefix.to_owned(), ..columns("translation.en", "translation.fr") },
        Ok(&[
            example("1", &format!("{prefix}a red house"), &["une maison rouge"]),
            example("2", &format!("{prefix}the sea"), &["la mer « bleue »"]),
        ]),
    );
    check(
        &fixture("questions.parquet"),
        &squad(),
        Ok(&[
            example("q1", "question: What is blue? context: The sea is blue.", &["The sea", "sea"]),
            example("q2", "question: What is red? context: A house is red.", &["house"]),
        ]),
    );
}

#[test]
fn several_references() {
    let more = |names: &[&str]| Columns {
        more_references: names.iter().map(|&name| name.to_owned()).collect(),
        ..columns("en", "fr")
    };
    let file = fixture("references.parquet");
    check(
        &file,
        &more(&["fr_other", "fr_more"]),
        Ok(&[example("1", "one", &["un", "une", "1"]), example("2", "two", &["deux"])]),
    );
    // Only the target must be present and hold a text.
    let wrong = ":2: column `fr_other` should be a string or a list of strings, found null";
    check(&file, &columns("en", "fr_other"), Err(wrong));
    check(&file, &more(&["fr_third"]), Err(": no column `fr_third`; there are: en, fr, fr_other, fr_more"));
    check_lines(
        "{\"source\": \"one\", \"target\": [\"a\", \"b\", \"a\"]}",
        &Columns::default(),
        Ok(&[example("1", "one", &["a", "b"])]),
    );
}

#[test]
fn records_without_reference_are_left_out_if_so_wanted() {
    let leave_out = Columns { without_reference: WithoutReference::LeaveOut, ..squad() };
    check(
        &fixture("unanswerable.parquet"),
        &leave_out,
        Ok(&[
            example("q1", "question: What is blue? context: The sea is blue.", &["The sea", "sea"]),
            example("q2", "question: What is red? context: A house is red.", &["house"]),
        ]),
    );
    let columns = Columns { without_reference: WithoutReference::LeaveOut, ..Columns::default() };
    let empty = "{\"source\": \"one\", \"target\": []}\n";
    check_lines(empty, &columns, Err(": the dataset is empty"));
    // The records that stay keep their numbers.
    let line = "{\"source\": \"two\", \"target\": \"deux\"}";
    check_lines(&format!("{empty}{line}"), &columns, Ok(&[example("2", "two", &["deux"])]));
    // A reference may come from another column.
    check_lines(
        "{\"source\": \"one\", \"target\": [], \"more\": \"un\"}",
        &Columns { more_references: vec!["more".to_owned()], ..columns },
        Ok(&[example("1", "one", &["un"])]),
    );
}

#[test]
fn parquet_errors() {
    check(
        &fixture("questions.parquet"),
        &columns("question", "answers"),
        Err(
            ": no column `answers`; there are: id, title, context, question, answers.text, answers.answer_start",
        ),
    );
    check(
        &fixture("questions.parquet"),
        &columns("question", "answers.answer_start"),
        Err(":1: column `answers.answer_start` should be a string or a list of strings, found a number"),
    );
    check(
        &fixture("unanswerable.parquet"),
        &squad(),
        Err(
            ":3: column `answers.text` is an empty list, so that nothing counts as right; `without_reference = \
             \"leave-out\"` among the columns leaves such records out",
        ),
    );
    check(&fixture("empty.parquet"), &squad(), Err(": the dataset is empty"));
    // The null comes after a record whose target is a string without the annotation that says so.
    check(
        &fixture("other.parquet"),
        &Columns::default(),
        Err(":2: column `source` should be a string, found null"),
    );
    check(
        &fixture("other.parquet"),
        &columns("score", "target"),
        Err(":1: column `score` should be a string, found a number"),
    );
    let error = read_rows(&fixture("other.parquet")).unwrap_err().to_string();
    assert!(error.ends_with("no column `package`; there are: id, source, target, score"), "{error}");
}

#[test]
fn columns_are_configuration() {
    let read = serde_json::from_str::<Columns>;
    assert_eq!(read("{}").unwrap(), Columns::default());
    assert_eq!(read("{\"source\": \"a\", \"target\": \"b\"}").unwrap(), columns("a", "b"));
    let leave_out = read("{\"without_reference\": \"leave-out\", \"more_references\": [\"c\"]}").unwrap();
    assert_eq!(
        (leave_out.without_reference, leave_out.more_references.len()),
        (WithoutReference::LeaveOut, 1)
    );
    assert!(read("{\"sources\": \"a\"}").unwrap_err().to_string().contains("unknown field `sources`"));
}

/// A stream goes on after a malformed line and ends with a reading error.
#[test]
fn json_lines_stream() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("unplugged"))
        }
    }
    let stream = BufReader::new(b"[1]\n{\n\n[2, 3]\n[\xff]\n".as_slice().chain(Broken));
    let items: Vec<Result<(usize, Vec<u32>), String>> =
        JsonLines::new(stream, "stream").map(|item| item.map_err(|error| error.to_string())).collect();
    assert_eq!(items[0], Ok((1, vec![1])));
    assert_eq!(items[1], Err("stream:2:1: invalid type: map, expected a sequence".to_owned()));
    assert_eq!(items[2], Ok((4, vec![2, 3])));
    assert!(items[3].as_ref().unwrap_err().starts_with("stream:5:"));
    assert_eq!(items[4], Err("cannot read stream: unplugged".to_owned()));
    assert_eq!(items.len(), 5);
}

proptest! {
    #[test]
    fn rows_come_back(texts in proptest::collection::vec(proptest::array::uniform4(".*"), 0..20)) {
        let rows: Vec<Row> =
            texts.into_iter().map(|[id, package, source, target]| Row { id, package, source, target }).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.parquet");
        write_rows(&path, &rows).unwrap();
        prop_assert_eq!(&read_rows(&path).unwrap(), &rows);

        let examples = read_examples(&path, &Columns::default());
        let sources = |examples: Vec<Example>| examples.into_iter().map(|e| (e.id, e.source, e.references));
        let expected = rows.iter().map(|row| (row.id.clone(), row.source.clone(), vec![row.target.clone()]));
        match examples {
            Ok(examples) => prop_assert!(sources(examples).eq(expected)),
            Err(error) => prop_assert!(rows.is_empty(), "{}", error),
        }
    }
}
