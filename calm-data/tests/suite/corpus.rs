//! What the committed splits promise.

use calm_data::tokenizer::normalize;
use calm_data::{Row, read_rows};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

const TASKS: [(&str, &str); 3] = [
    ("translation", "translate English to French: "),
    ("summarisation", "summarize: "),
    ("qa", "question: "),
];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data")
}

fn split(task: &str, split: &str) -> Vec<Row> {
    read_rows(&data().join(task).join(format!("{split}.parquet"))).unwrap()
}

/// Removes digits and punctuation, as the builder does to compare texts of different packages.
fn letters(text: &str) -> String {
    text.chars().filter(|c| c.is_alphabetic()).flat_map(char::to_lowercase).collect()
}

#[test]
fn sizes_prefixes_and_names() {
    for (task, prefix) in TASKS {
        let mut ids = HashSet::new();
        for name in ["calibration", "test"] {
            let rows = split(task, name);
            assert_eq!(rows.len(), 2_000, "{task} {name}");
            for row in rows {
                assert!(row.source.starts_with(prefix) && row.source.len() > prefix.len(), "{}", row.id);
                assert!(!row.target.is_empty() && !row.package.is_empty(), "{}", row.id);
                assert!(ids.insert(row.id.clone()), "{} twice", row.id);
            }
        }
    }
}

/// All tasks share one division of the source packages.
#[test]
fn splits_share_no_source_package() {
    let packages = |name: &str| -> HashSet<String> {
        TASKS.iter().flat_map(|(task, _)| split(task, name)).map(|row| row.package).collect()
    };
    let (calibration, test) = (packages("calibration"), packages("test"));
    assert_eq!(calibration.intersection(&test).next(), None);
}

#[test]
fn splits_share_no_text() {
    for (task, prefix) in TASKS {
        let mut homes: HashMap<(usize, String), String> = HashMap::new();
        let mut texts = HashSet::new();
        for row in ["calibration", "test"].iter().flat_map(|name| split(task, name)) {
            let source = row.source.strip_prefix(prefix).unwrap();
            // The answer to a question is a word or two, which many questions share.
            let compared = if task == "qa" {
                <[&str; 2]>::from(source.split_once(" context: ").unwrap())
            } else {
                [source, row.target.as_str()]
            };
            for (field, text) in compared.into_iter().enumerate() {
                let home = homes.entry((field, letters(text))).or_insert_with(|| row.package.clone());
                assert_eq!(*home, row.package, "{}: {text}", row.id);
                assert!(texts.insert((field, text.to_owned())), "{} repeats a text", row.id);
            }
        }
    }
}

#[test]
fn the_tokenizer_can_write_every_target() {
    let tokenizer = Tokenizer::from_file(data().join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.get_vocab_size(true), 8_192);
    let unknown = tokenizer.token_to_id("<unk>").unwrap();
    let mut with_unknown = 0;
    for row in TASKS.iter().flat_map(|(task, _)| split(task, "calibration")) {
        assert_eq!(normalize(&row.target).unwrap(), row.target);
        let ids = tokenizer.encode(row.target.as_str(), true).unwrap();
        if ids.get_ids().contains(&unknown) {
            with_unknown += 1;
        } else {
            assert_eq!(tokenizer.decode(ids.get_ids(), true).unwrap(), row.target);
        }
    }
    // At most one target in a thousand may need a character that no training text has.
    assert!(with_unknown <= 6, "{with_unknown}");
}
