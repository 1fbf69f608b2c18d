//! Tests of what is added to the training split of the translation task.

use crate::builder::{Package, TASKS, filler, options, word, write_indices};
use calm_data::debian::{BuildOptions, BuildReport, OriginReport, build};
use calm_data::{Error, Row, read_rows};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::Command;

const PREFIX: &str = "translate English to French: ";

fn rows(out: &Path, file: &str) -> Vec<Row> {
    read_rows(&out.join(file)).unwrap()
}

/// Reads the rows of the training split that an origin added.
fn added(out: &Path, origin: &str) -> Vec<Row> {
    let mut rows = rows(out, "train/translation.parquet");
    rows.retain(|row| row.id.starts_with(&format!("{origin}/")));
    rows
}

/// Reads every file except the one that rows are added to.
fn other_files(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let held_out =
        TASKS.iter().flat_map(|task| ["calibration", "test"].map(|split| format!("{task}/{split}")));
    let files = held_out.chain(["train/summarisation", "train/qa"].map(str::to_owned));
    let files = files.map(|file| format!("{file}.parquet")).chain(["tokenizer.json".to_owned()]);
    files.map(|file| (file.clone(), fs::read(out.join(file)).unwrap())).collect()
}

/// Reads the names of the source packages in the held-out splits.
fn held_out_packages(out: &Path) -> HashSet<String> {
    let splits =
        TASKS.iter().flat_map(|task| ["calibration", "test"].map(|split| format!("{task}/{split}.parquet")));
    splits.flat_map(|file| rows(out, &file)).map(|row| row.package).collect()
}

fn package(name: &str, english: &str, french: &str) -> Package {
    Package {
        name: name.to_owned(),
        english: english.to_owned(),
        french: Some(french.to_owned()),
        ..Package::default()
    }
}

/// A small bookworm corpus, built first without and then with another release.
struct Releases {
    folder: tempfile::TempDir,
    report: BuildReport,
}

impl Releases {
    fn build(bookworm: &[Package], other: impl FnOnce(&Path) -> Vec<Package>) -> Releases {
        let folder = tempfile::tempdir().unwrap();
        let (lists, plain) = (folder.path().join("lists"), folder.path().join("plain"));
        write_indices(&lists, "bookworm", bookworm);
        build(&options(&plain, &lists, 10)).unwrap();
        write_indices(&lists, "trixie", &other(&plain));
        let mut options = options(&folder.path().join("out"), &lists, 10);
        options.releases = vec!["trixie".to_owned()];
        let report = build(&options).unwrap();
        Releases { folder, report }
    }

    fn added(&self) -> Vec<Row> {
        added(&self.folder.path().join("out"), "trixie")
    }
}

#[test]
fn new_descriptions_of_training_packages_are_added() {
    // The release has every description again with other digits and one new paragraph; sources have other
    // names.
    let renamed = |mut package: Package| {
        let source = package.source.unwrap();
        let name = package.name.clone();
        package.source = Some(format!("new-{source}"));
        package.english =
            format!("{} .\n In short, {name} counts its sheep.\n", package.english.replace("tool", "Tool 2"));
        let french = package.french.unwrap();
        package.french = Some(format!("{french} .\n Bref, {name} compte ses moutons.\n"));
        package
    };
    let bookworm = filler(40);
    let built = Releases::build(&bookworm, |_| bookworm.iter().cloned().map(renamed).collect());
    let out = built.folder.path().join("out");
    let source_of = |name: &str| {
        let package = bookworm.iter().find(|package| package.name == name).unwrap();
        package.source.as_ref().unwrap().split(' ').next().unwrap().to_owned()
    };

    let held_out = held_out_packages(&out);
    let of_training = bookworm.iter().filter(|package| !held_out.contains(&source_of(&package.name))).count();
    let added = built.added();
    assert!(!held_out.is_empty() && of_training > 0);
    assert_eq!(added.len(), of_training);
    for row in &added {
        let name = row.id.split('/').nth(1).unwrap();
        assert_eq!(row.package, format!("new-{}", source_of(name)));
        assert!(!held_out.contains(&source_of(name)), "{}", row.id);
        assert_eq!(row.source, format!("{PREFIX}In short, {name} counts its sheep."));
        assert_eq!(row.target, format!("Bref, {name} compte ses moutons."));
    }

    // Nothing else depends on what is added, and the rows that were there before keep their order.
    let plain = built.folder.path().join("plain");
    for (file, bytes) in other_files(&plain) {
        assert!(bytes == other_files(&out)[&file], "{file} differs");
    }
    let all = rows(&out, "train/translation.parquet");
    let before: Vec<Row> = all.iter().filter(|row| !row.id.starts_with("trixie/")).cloned().collect();
    assert_eq!(before, rows(&plain, "train/translation.parquet"));
    assert!(all[..all.len() / 2].iter().any(|row| row.id.starts_with("trixie/")));

    let report = &built.report.added[0];
    assert_eq!((report.origin.as_str(), report.added), ("trixie", of_training));
    assert_eq!(report.source_words, 10 * of_training);
    assert_eq!(report.target_words, 5 * of_training);
    assert!(report.candidates > report.added);
    assert_eq!(built.report.tasks["translation"].train, all.len());
    assert_eq!(built.report.indices.len(), 6);
}

/// Texts that are known on one side only, in other packages and with other digits, case and punctuation.
#[test]
fn known_and_held_out_texts_are_not_added() {
    let bookworm = filler(40);
    let built = Releases::build(&bookworm, |plain| {
        let mut packages = Vec::new();
        for (number, file) in ["translation/test", "summarisation/test", "qa/calibration"].iter().enumerate()
        {
            for (index, row) in rows(plain, &format!("{file}.parquet")).iter().enumerate() {
                let name = format!("fresh-{number}-{index}");
                let texts = match *file {
                    "qa/calibration" => vec![row.source.split_once(" context: ").unwrap().1.to_owned()],
                    "summarisation/test" => vec![row.target.clone(), row.source.replace("summarize: ", "")],
                    _ => vec![row.source.replace(PREFIX, "")],
                };
                for (which, text) in texts.iter().enumerate() {
                    let own = word(100 * number + 2 * index + which);
                    let text = text.to_uppercase();
                    packages.push(package(
                        &format!("{name}-{which}"),
                        &format!("{text} 7"),
                        &format!("du nouveau, {own}"),
                    ));
                }
                if *file == "translation/test" {
                    let english = format!("some news, {}", word(500 + index));
                    packages.push(package(&format!("{name}-f"), &english, &format!("9 : {}", row.target)));
                }
            }
        }
        packages.push(package("sheep", "it counts sheep", "il compte les moutons"));
        packages.push(package("goats", "it counts goats", "Il compte 1 les moutons !"));
        packages.push(package("copy", "it counts pigs", "it counts pigs"));
        packages.push(package("nearly-a-copy", "it counts cows", "It counts: cows 2"));
        // A long held-out text occurs within another one.
        let held_out = rows(plain, "summarisation/test.parquet");
        let long =
            held_out.iter().map(|row| row.source.replace("summarize: ", "")).max_by_key(String::len).unwrap();
        packages.push(package(
            "within",
            &format!("Of old: {long} And more"),
            "quelque chose d'autre, de la meme longueur sans doute que l'anglais",
        ));
        packages
    });
    let added = built.added();
    let found: Vec<&str> = added.iter().map(|row| row.package.as_str()).collect();
    assert!(matches!(found[..], ["sheep"] | ["goats"]), "{added:?}");
}

/// Writes a package of files below `usr/share`.
fn write_package(lists: &Path, name: &str, pages: &[(&str, &[u8])]) {
    let tree = tempfile::tempdir().unwrap();
    for (page, contents) in pages {
        let page = tree.path().join("usr/share").join(page);
        fs::create_dir_all(page.parent().unwrap()).unwrap();
        fs::write(page, contents).unwrap();
    }
    fs::create_dir(tree.path().join("DEBIAN")).unwrap();
    let control = format!(
        "Package: {name}\nVersion: 4:7.4\nArchitecture: all\nMaintainer: A <a@b.example>\nDescription: help\n"
    );
    fs::write(tree.path().join("DEBIAN/control"), control).unwrap();
    let file = lists.join(format!("{name}_4%3a7.4_all.deb"));
    let built = Command::new("dpkg-deb").arg("--build").arg(tree.path()).arg(file).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

#[test]
fn the_help_is_added() {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        eprintln!("skipped: no dpkg-deb");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let lists = folder.path().join("lists");
    write_indices(&lists, "bookworm", &filler(20));
    let english = "<h1 id=\"hd_1\">Clipboard &amp; co</h1><p id=\"par_1\">Press <span class=\"switchinline\">\
        <span hidden=\"true\" id=\"MACx\">Command</span> <span hidden=\"true\" id=\"defaultx\">Ctrl</span></span>+V.</p>\
        <p id=\"par_2\">This is  part badegu.</p>";
    let french = "<h1 id=\"hd_1\">Le presse-papiers &amp; co</h1>\n<p id=\"par_1\">Tapez <span class=\"switchinline\">\
        <span hidden=\"true\" id=\"defaultx\">Ctrl</span></span>+V\u{a0}: c\u{2019}est  tout.</p>\
        <p id=\"par_2\">Autrement dit.</p>";
    let options = BuildOptions {
        documentation: vec!["libreoffice-help".to_owned()],
        ..options(&folder.path().join("out"), &lists, 2)
    };
    let message = |result: Result<BuildReport, Error>| result.err().unwrap().to_string();
    let missing = message(build(&options));
    assert!(missing.contains("no file `libreoffice-help-en-us_VERSION.deb`"), "{missing}");
    let page = "libreoffice/help/en-US/text/shared/clip.html";
    write_package(&lists, "libreoffice-help-en-us", &[(page, english.as_bytes())]);
    let missing = message(build(&options));
    assert!(missing.contains("no file `libreoffice-help-fr_VERSION.deb`"), "{missing}");
    let broken = lists.join("libreoffice-help-fr_1_all.deb");
    fs::write(&broken, "nothing").unwrap();
    assert!(message(build(&options)).starts_with("dpkg-deb: exit status"));
    fs::remove_file(broken).unwrap();

    let page = "libreoffice/help/fr/text/shared/clip.html";
    write_package(&lists, "libreoffice-help-fr", &[(page, french.as_bytes())]);
    let report = build(&options).unwrap();
    let mut found: Vec<[String; 4]> = added(&options.out, "libreoffice-help")
        .into_iter()
        .map(|row| [row.id, row.package, row.source, row.target])
        .collect();
    found.sort();
    let row = |id: &str, english: &str, french: &str| {
        [
            format!("libreoffice-help/shared/clip#{id}"),
            "libreoffice".into(),
            format!("{PREFIX}{english}"),
            french.into(),
        ]
    };
    let mut expected = vec![
        row("hd_1", "Clipboard & co", "Le presse-papiers & co"),
        row("par_1", "Press Ctrl+V.", "Tapez Ctrl+V : c'est tout."),
        row("par_2", "This is part badegu.", "Autrement dit."),
    ];
    assert_eq!(found, expected);
    let origin = "libreoffice-help".to_owned();
    let numbers = OriginReport { origin, candidates: 3, added: 3, source_words: 21, target_words: 11 };
    assert_eq!(report.added, [numbers]);
    let names: Vec<&str> = report.indices.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[3..], ["libreoffice-help-en-us_4%3a7.4_all.deb", "libreoffice-help-fr_4%3a7.4_all.deb"]);

    // The same files give the same bytes, and a text of bookworm is not added again.
    let first = fs::read(options.out.join("train/translation.parquet")).unwrap();
    build(&options).unwrap();
    assert!(first == fs::read(options.out.join("train/translation.parquet")).unwrap());
    let mut packages = filler(20);
    packages.push(package("known", "this is PART badegu", "autre chose"));
    write_indices(&lists, "bookworm", &packages);
    build(&options).unwrap();
    expected.pop();
    assert_eq!(added(&options.out, "libreoffice-help").len(), expected.len());
}

/// The page has no ids and is in Latin-1; its second section has one more paragraph in French.
#[test]
fn documentation_is_added_after_the_releases() {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        eprintln!("skipped: no dpkg-deb");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let lists = folder.path().join("lists");
    let mut bookworm = filler(40);
    write_indices(&lists, "bookworm", &bookworm);
    write_indices(&lists, "trixie", &[package("known", "Everybody knows this", "Tous le savent")]);
    let english = "<h1>The window</h1><p>It has a <b>bar</b>.</p><pre>x = 1</pre><p>Everybody knows this.</p>\
                   <h1>The end</h1><p>Never aligned.</p>";
    let french = b"<h1>La fen\xeatre</h1><p>Elle a une barre.</p><pre>x = 1</pre><p>On le sait.</p>\
                   <h1>La fin</h1><p>Bien.</p><p>Fini.</p>";
    let page = |language: &str| format!("doc/weechat-doc/html/weechat_user.{language}.html");
    write_package(&lists, "weechat-doc", &[(&page("en"), english.as_bytes()), (&page("fr"), french)]);
    let out = folder.path().join("out");
    let options = BuildOptions {
        releases: vec!["trixie".to_owned()],
        documentation: vec!["weechat".to_owned()],
        ..options(&out, &lists, 10)
    };
    let report = build(&options).unwrap();
    let origins: Vec<&str> = report.added.iter().map(|report| report.origin.as_str()).collect();
    assert_eq!(origins, ["trixie", "weechat"]);
    let mut found: Vec<[String; 4]> =
        added(&out, "weechat").into_iter().map(|row| [row.id, row.package, row.source, row.target]).collect();
    found.sort();
    let row = |key: &str, english: &str, french: &str| {
        [
            format!("weechat/weechat_user#{key}"),
            "weechat".to_owned(),
            format!("{PREFIX}{english}"),
            french.to_owned(),
        ]
    };
    let expected =
        [row("1.0", "The window", "La fen\u{ea}tre"), row("1.1", "It has a bar.", "Elle a une barre.")];
    assert_eq!(found, expected);

    // The index says that the package belongs to a held-out source, so the whole origin is left out.
    let held_out = held_out_packages(&out).into_iter().min().unwrap();
    let (name, english) = ("weechat-doc".to_owned(), "documentation".to_owned());
    bookworm.push(Package { name, source: Some(held_out), english, french: None });
    write_indices(&lists, "bookworm", &bookworm);
    let report = build(&options).unwrap();
    assert_eq!(report.added[1].candidates, 0);
}

#[test]
fn unknown_documentation_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&folder.path().join("out"), folder.path(), 2);
    options.documentation = vec!["gimp-help".to_owned(), "no-help".to_owned()];
    let message = build(&options).err().unwrap().to_string();
    assert!(
        message.starts_with("unknown documentation `no-help`: there are libreoffice-help, "),
        "{message}"
    );
}

#[test]
fn a_missing_release_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let lists = folder.path().join("lists");
    write_indices(&lists, "bookworm", &filler(20));
    let mut options = options(&folder.path().join("out"), &lists, 2);
    options.releases = vec!["trixie".to_owned()];
    let error = build(&options).unwrap_err();
    assert!(
        matches!(&error, Error::NoIndex { suffix, .. } if suffix == "_dists_trixie_main_binary-amd64_Packages")
    );
}
