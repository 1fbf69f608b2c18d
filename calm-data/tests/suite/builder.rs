use calm_data::debian::{BuildOptions, BuildReport, build};
use calm_data::{Error, Row, read_rows};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub(crate) const TASKS: [&str; 3] = ["translation", "summarisation", "qa"];
const INDICES: [&str; 3] = ["binary-amd64_Packages", "i18n_Translation-en", "i18n_Translation-fr"];

/// One binary package of a small archive.
#[derive(Clone, Default)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// The field `Source`, if there is one.
    pub(crate) source: Option<String>,
    pub(crate) english: String,
    pub(crate) french: Option<String>,
}

impl Package {
    /// Writes the package's stanzas of the three indices. The sum is not MD5, since the builder only compares
    /// it.
    fn stanzas(&self) -> [String; 3] {
        let name = &self.name;
        let sum =
            format!("{:032x}", self.english.bytes().fold(7u128, |sum, b| sum * 131 % (1 << 100) + b as u128));
        let source = self.source.as_ref().map(|source| format!("Source: {source}\n")).unwrap_or_default();
        let english = self.english.trim_end();
        let french = self.french.as_ref().map(|text| {
            format!("Package: {name}\nDescription-md5: {sum}\nDescription-fr: {}\n\n", text.trim_end())
        });
        [
            format!("Package: {name}\n{source}Version: 1\nDescription-md5: {sum}\nTag: a::b,\n c::d\n\n"),
            format!("Package: {name}\nDescription-md5: {sum}\nDescription-en: {english}\n\n"),
            french.unwrap_or_default(),
        ]
    }
}

/// Makes words that differ in their letters, since texts that differ only in digits count as duplicates.
pub(crate) fn word(number: usize) -> String {
    let syllable = |n: usize| ["ba", "de", "fi", "go", "lu", "ma", "ne", "pi", "ro", "su"][n % 10];
    [number / 100, number / 10, number].map(syllable).concat()
}

/// Makes enough other packages to train a tokenizer on, with two binary packages for each source.
pub(crate) fn filler(sources: usize) -> Vec<Package> {
    let package = |number: usize| {
        let (own, source) = (word(number), word(number / 2));
        Package {
            name: format!("{own}-bin"),
            source: Some(format!("{source} (1.0)")),
            english: format!(
                "tool for {own} files\n The {own} program reads files of {source} kind.\n It writes all of them again.\n .\n This is part {own}.\n"
            ),
            french: Some(format!(
                "outil pour les fichiers {own}\n Le programme {own} lit les fichiers du genre {source}.\n Il les écrit encore.\n .\n Ceci est la partie {own}.\n"
            )),
        }
    };
    (0..2 * sources).map(package).collect()
}

pub(crate) fn write_indices(folder: &Path, release: &str, packages: &[Package]) {
    fs::create_dir_all(folder).unwrap();
    let stanzas: Vec<[String; 3]> = packages.iter().map(Package::stanzas).collect();
    for (number, index) in INDICES.iter().enumerate() {
        let text: String = stanzas.iter().map(|stanza| stanza[number].as_str()).collect();
        let name = format!("mirror.example_debian_dists_{release}_main_{index}");
        fs::write(folder.join(name), text).unwrap();
    }
}

struct Built {
    folder: TempDir,
    report: BuildReport,
}

/// Options for a corpus to which nothing is added, with a small tokenizer.
pub(crate) fn options(out: &Path, lists: impl Into<PathBuf>, held_out: usize) -> BuildOptions {
    let mut options = BuildOptions::new(out);
    options.lists = Some(lists.into());
    options.releases = Vec::new();
    options.documentation = Vec::new();
    options.held_out = held_out;
    options.vocab_size = 90;
    options
}

fn build_from(packages: &[Package], held_out: usize) -> Result<Built, Error> {
    let folder = tempfile::tempdir().unwrap();
    let lists = folder.path().join("lists");
    write_indices(&lists, "bookworm", packages);
    build(&options(folder.path(), lists, held_out)).map(|report| Built { folder, report })
}

impl Built {
    fn rows(&self, task: &str, split: &str) -> Vec<Row> {
        let file = match split {
            "train" => format!("train/{task}.parquet"),
            _ => format!("{task}/{split}.parquet"),
        };
        read_rows(&self.folder.path().join(file)).unwrap()
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let splits = TASKS.iter().flat_map(|task| {
            ["calibration", "test"].map(|split| format!("{task}/{split}.parquet")).into_iter()
        });
        let train = TASKS.iter().map(|task| format!("train/{task}.parquet"));
        splits
            .chain(train)
            .chain(["tokenizer.json".to_owned()])
            .map(|name| (name.clone(), fs::read(self.folder.path().join(&name)).unwrap()))
            .collect()
    }
}

/// Returns the examples that one package gives, as (number in the description, source, target).
fn translations(english: &str, french: &str) -> Vec<(String, String, String)> {
    let mut packages = filler(20);
    packages.push(Package {
        name: "subject".to_owned(),
        english: english.to_owned(),
        french: Some(french.to_owned()),
        ..Package::default()
    });
    let built = build_from(&packages, 0).unwrap();
    let mut rows: Vec<(String, String, String)> = built
        .rows("translation", "train")
        .into_iter()
        .filter(|row| row.package == "subject")
        .map(|row| {
            let number = row.id.split_once('#').unwrap().1.to_owned();
            let source = row.source.strip_prefix("translate English to French: ").unwrap().to_owned();
            (number, source, row.target)
        })
        .collect();
    rows.sort();
    rows
}

#[track_caller]
fn check_translations(english: &str, french: &str, expected: &[(&str, &str, &str)]) {
    let found = translations(english, french);
    let found: Vec<(&str, &str, &str)> =
        found.iter().map(|(n, s, t)| (n.as_str(), s.as_str(), t.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn paragraphs_are_aligned_and_unwrapped() {
    check_translations(
        "a viewer\n It shows images\n of any size.\n .\n It is small.\n",
        "visionneur\n Il montre des\n images de toute taille.\n .\n Il est petit.\n",
        &[
            ("0", "a viewer", "visionneur"),
            ("1", "It shows images of any size.", "Il montre des images de toute taille."),
            ("2", "It is small.", "Il est petit."),
        ],
    );
    // The numbers of paragraphs differ, so nothing is paired, not even the synopsis.
    check_translations("a viewer\n One.\n .\n Two.\n", "visionneur\n Un et deux.\n", &[]);
    // A translator's empty line may consist of a no-break space, and U+22C5 may stand for such a space.
    check_translations(
        "a viewer\n One: two.\n .\n Three.\n",
        "visionneur\n Un⋅: d’eux.\n \u{a0}\n Trois.\n",
        &[("0", "a viewer", "visionneur"), ("1", "One: two.", "Un : d'eux."), ("2", "Three.", "Trois.")],
    );
}

#[test]
fn list_items_are_units() {
    check_translations(
        "a viewer\n It shows:\n  * images that are\n    large\n  * other images\n This is all.\n",
        "visionneur\n Il montre :\n  –⋅images qui sont\n    grandes ;\n  – autres images ;\n C'est tout.\n",
        &[
            ("0", "a viewer", "visionneur"),
            ("1", "It shows:", "Il montre :"),
            ("2", "images that are large", "images qui sont grandes"),
            ("3", "other images", "autres images"),
            ("4", "This is all.", "C'est tout."),
        ],
    );
    // Unindented items wrap like prose; numbers are markers too.
    check_translations(
        "a viewer\n 1. first of\n the two\n 2) second\n",
        "visionneur\n 1) premier des\n deux\n 2) second objet\n",
        &[
            ("0", "a viewer", "visionneur"),
            ("1", "first of the two", "premier des deux"),
            ("2", "second", "second objet"),
        ],
    );
    // Verbatim lines are units by themselves.
    check_translations(
        "a viewer\n Call:\n   view one\n   view two\n",
        "visionneur\n Appel :\n   voir un\n   voir deux\n",
        &[
            ("0", "a viewer", "visionneur"),
            ("1", "Call:", "Appel :"),
            ("2", "view one", "voir un"),
            ("3", "view two", "voir deux"),
        ],
    );
    // A paragraph whose items do not match is left out, the others stay.
    check_translations(
        "a viewer\n - one\n - two\n .\n The end.\n",
        "visionneur\n - un et deux\n .\n La fin.\n",
        &[("0", "a viewer", "visionneur"), ("1", "The end.", "La fin.")],
    );
}

#[test]
fn untranslated_and_unsuitable_text_is_left_out() {
    let long = "word ".repeat(81);
    check_translations(
        &format!(
            "a viewer\n Untouched text.\n .\n {long}\n .\n 日本\n .\n 12.5\n .\n Short one.\n .\n Good one.\n"
        ),
        &format!(
            "visionneur\n Untouched text.\n .\n {}\n .\n japon\n .\n 12,5\n .\n {}\n .\n Bon.\n",
            long.replace('o', "ô"),
            "Beaucoup trop long ".repeat(5)
        ),
        &[("0", "a viewer", "visionneur"), ("6", "Good one.", "Bon.")],
    );
}

#[test]
fn questions_have_their_answer_in_the_context() {
    let built = build_from(&filler(40), 10).unwrap();
    let mut n_questions = 0;
    let mut targets = HashMap::new();
    for split in ["train", "calibration", "test"] {
        let synopses: HashMap<String, Row> =
            built.rows("summarisation", split).into_iter().map(|row| (row.id.clone(), row)).collect();
        for row in built.rows("qa", split) {
            let (question, context) =
                row.source.strip_prefix("question: ").unwrap().split_once(" context: ").unwrap();
            assert_eq!(question.matches("___").count(), 1);
            assert!(context.contains(&row.target));
            if let Some(summary) = synopses.get(&row.id) {
                assert_eq!(question.replace("___", &row.target), summary.target);
                assert_eq!(format!("summarize: {context}"), summary.source);
            }
            n_questions += 1;
            *targets.entry(row.target.contains("file")).or_insert(0) += 1;
        }
    }
    assert_eq!(n_questions, built.report.tasks["qa"].train + 20);
    // Both possible answers (the name and `files`) are asked for.
    assert!(targets.len() == 2, "{targets:?}");
}

#[test]
fn function_words_and_parts_of_words_are_no_answers() {
    let subject = |synopsis: &str, long: &str| Package {
        name: "subject".to_owned(),
        english: format!("{synopsis}\n {long}\n"),
        ..Package::default()
    };
    let answer = |synopsis: &str, long: &str| {
        let mut packages = filler(20);
        packages.push(subject(synopsis, long));
        let rows = build_from(&packages, 0).unwrap().rows("qa", "train");
        rows.into_iter().find(|row| row.package == "subject").map(|row| row.target)
    };
    assert_eq!(answer("with the viewer", "with the reviewers of these images there"), None);
    assert_eq!(answer("viewer, viewer", "the viewer is one viewer of many"), None);
    assert_eq!(answer("(small) viewer", "it is a small program, and a fast one"), Some("small".to_owned()));
    // `moons` is another word, and `of the` is nothing to ask for; a phrase may contain a function word.
    assert_eq!(
        answer("moons of the sun", "pictures of the moon and the sun at night"),
        Some("sun".to_owned())
    );
    let answers = ["pictures", "pictures of moons", "moons"].map(|answer| Some(answer.to_owned()));
    assert!(answers.contains(&answer("pictures of moons", "it shows pictures of moons at night, none else")));
}

#[test]
fn splits_are_made_by_source_package() {
    let mut packages = filler(60);
    // Versions of one library, each in its own source package, have texts that differ only in digits.
    for number in 1..30 {
        packages.push(Package {
            name: format!("library{number}"),
            english: format!("library number {number}\n The library with the number {number} does it all.\n"),
            french: Some(format!(
                "bibliothèque numéro {number}\n La bibliothèque de numéro {number} fait tout.\n"
            )),
            ..Package::default()
        });
    }
    let built = build_from(&packages, 20).unwrap();
    let mut home: HashMap<String, &str> = HashMap::new();
    let mut n_libraries = BTreeMap::new();
    for task in TASKS {
        let report = &built.report.tasks[task];
        assert_eq!((report.calibration, report.test), (20, 20));
        let mut texts = HashSet::new();
        for split in ["train", "calibration", "test"] {
            let rows = built.rows(task, split);
            assert_eq!(rows.len(), if split == "train" { report.train } else { 20 });
            let mut per_package: HashMap<&str, usize> = HashMap::new();
            for row in &rows {
                assert_eq!(*home.entry(row.package.clone()).or_insert(split), split, "{}", row.package);
                assert!(texts.insert(row.source.clone()), "{} twice", row.source);
                assert!(task == "qa" || texts.insert(row.target.clone()), "{} twice", row.target);
                *per_package.entry(&row.package).or_default() += 1;
                if row.package.starts_with("library") {
                    *n_libraries.entry(task).or_insert(0) += 1;
                }
            }
            if split != "train" {
                assert!(per_package.values().all(|&count| count <= 8), "{per_package:?}");
            }
        }
    }
    // One version of each text stays; translation has both the synopsis and the paragraph.
    assert_eq!(n_libraries, BTreeMap::from([("qa", 1), ("summarisation", 1), ("translation", 2)]));
}

#[test]
fn packages_of_one_source_stay_together() {
    let built = build_from(&filler(40), 10).unwrap();
    let rows = built.rows("summarisation", "train");
    let names: HashSet<&str> = rows.iter().map(|row| row.package.as_str()).collect();
    // The version that `Source` may add is not part of the name, which both binary packages share.
    assert!(names.contains(&*word(0)) || names.contains(&*word(1)));
    assert!(rows.len() > names.len());
}

#[test]
fn the_same_indices_give_the_same_bytes() {
    let packages = filler(40);
    let first = build_from(&packages, 10).unwrap();
    let mut reversed = packages.clone();
    reversed.reverse();
    let second = build_from(&reversed, 10).unwrap();
    for (name, bytes) in first.files() {
        assert!(bytes == second.files()[&name], "{name} differs");
    }
    assert_ne!(first.report.indices, second.report.indices);
}

#[test]
fn errors() {
    let message = |result: Result<Built, Error>| result.err().unwrap().to_string();
    assert_eq!(
        message(build_from(&filler(20), 1_000)),
        "translation: only 120 examples for a test split of 1000"
    );

    let folder = tempfile::tempdir().unwrap();
    let mut options = BuildOptions::new(folder.path().join("out"));
    options.lists = Some(folder.path().to_owned());
    let error = build(&options).unwrap_err();
    assert!(
        matches!(&error, Error::NoIndex { suffix, .. } if suffix == "_dists_bookworm_main_binary-amd64_Packages")
    );

    write_indices(folder.path(), "bookworm", &filler(3));
    let french = folder.path().join("mirror.example_debian_dists_bookworm_main_i18n_Translation-fr");
    fs::write(&french, "Package: a\nDescription-md5: 1\n\nno colon\n").unwrap();
    let error = build(&options).unwrap_err().to_string();
    assert_eq!(error, format!("{}:4: expected `Field: value` or a continuation line", french.display()));

    options.lists = Some(folder.path().join("missing"));
    assert!(build(&options).unwrap_err().to_string().ends_with("No such file or directory (os error 2)"));
}
