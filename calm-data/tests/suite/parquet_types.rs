//! Columns of Parquet files of every type, codec and encoding that pyarrow writes.

use calm_data::{Columns, read_examples};

use crate::readers::{check, columns, example, fixture};

#[test]
fn types_that_are_no_text_are_named() {
    for (column, found) in [
        ("day", "dates"),
        ("clock", "times"),
        ("moment", "timestamps"),
        ("price", "decimal numbers"),
        ("half", "16-bit floats"),
        ("pairs", "maps"),
        ("days", "dates"),
        ("structs", "lists of structs"),
        ("lists", "lists of lists"),
    ] {
        let expected = format!(": column `{column}` holds {found}, which are no text: store them as strings");
        check(&fixture("types.parquet"), &columns(column, "target"), Err(&expected));
        check(&fixture("types.parquet"), &columns("source", column), Err(&expected));
        let id = Columns { id: Some(column.to_owned()), ..Columns::default() };
        check(&fixture("types.parquet"), &id, Err(&expected));
    }
    check(
        &fixture("types.parquet"),
        &columns("bytes", "target"),
        Err(":2: column `bytes` holds bytes that are not UTF-8 text"),
    );
    check(
        &fixture("types.parquet"),
        &columns("meta.lang", "target"),
        Err(":2: column `meta.lang` should be a string, found null"),
    );
}

#[test]
fn types_that_are_text_or_integers() {
    let expected = [example("1", "one", &["un"]), example("2", "two", &["deux"])];
    // A struct may have fields that could not be read.
    let more = |name: &str| Columns { more_references: vec![name.to_owned()], ..Columns::default() };
    for column in ["category", "nothing"] {
        check(&fixture("types.parquet"), &more(column), Ok(&expected));
    }
    let check_id = |column: &str, ids: [&str; 2]| {
        let expected = [example(ids[0], "one", &["un"]), example(ids[1], "two", &["deux"])];
        let columns = Columns { id: Some(column.to_owned()), ..Columns::default() };
        check(&fixture("types.parquet"), &columns, Ok(&expected));
    };
    check_id("unsigned", ["4294967295", "0"]);
    check_id("fixed", ["abc", "def"]);
    check_id("image.path", ["a", "b"]);
}

#[test]
fn two_columns_of_one_name() {
    let expected = ": two columns are named `target`: rename one of them";
    check(&fixture("twice.parquet"), &Columns::default(), Err(expected));
    check(&fixture("twice.parquet"), &columns("source", "source"), Ok(&[example("1", "one", &["one"])]));
}

/// pyarrow reads the file.
#[test]
fn the_creator_may_be_any_bytes() {
    check(&fixture("latin.parquet"), &Columns::default(), Ok(&[example("1", "one", &["un"])]));
}

#[test]
fn codecs_encodings_and_versions() {
    let columns = Columns { more_references: vec!["more".to_owned()], ..Columns::default() };
    let expected = (0..40).map(|row| {
        let mut references = vec![format!("target {row}"), format!("other {row}")];
        references.truncate(row % 3);
        if references.is_empty() {
            references.push("none".to_owned());
        }
        references.extend((row % 5 != 0).then(|| format!("more {}", row % 3)));
        let references: Vec<&str> = references.iter().map(String::as_str).collect();
        example(&row.to_string(), &format!("source {}", row % 7), &references)
    });
    let expected: Vec<_> = expected.collect();
    for name in [
        "many-none-delta",
        "many-none-dictionary",
        "many-snappy-plain",
        "many-gzip-dictionary",
        "many-zstd-delta",
        "many-brotli-plain",
        "many-lz4-dictionary",
    ] {
        let examples = read_examples(fixture(&format!("{name}.parquet")), &columns);
        assert_eq!(examples.unwrap(), expected, "{name}");
    }
}
