//! Where the files of a dataset are: lists, patterns, Hugging Face's cache.

use calm_data::{Columns, DatasetPaths, HubCache, read_examples};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

use crate::readers::{check, columns, example, fixture};

const COMMIT: &str = "8b6ad3d4b5d1f7d0a9bba0a7c1d2e3f405162738";

fn paths(json: &str) -> Result<DatasetPaths, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

/// Makes a folder with files of one example each, whose source is the name of the file.
fn folder(names: &[&str]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for name in names {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{{\"source\": \"{name}\", \"target\": \"x\"}}\n")).unwrap();
    }
    folder
}

#[test]
fn configuration() {
    let one: DatasetPaths = Path::new("a.jsonl").into();
    assert_eq!(paths("\"a.jsonl\""), Ok(one.clone()));
    assert_eq!(paths("[\"a.jsonl\"]"), Ok(one.clone()));
    assert_eq!(serde_json::to_string(&one).unwrap(), "\"a.jsonl\"");
    let two = paths("[\"a.jsonl\", \"b.jsonl\"]").unwrap();
    assert_eq!(serde_json::to_string(&two).unwrap(), "[\"a.jsonl\",\"b.jsonl\"]");
    assert_eq!(two.to_string(), "a.jsonl, b.jsonl");
    assert_eq!(paths("[]"), Err("expected at least one path".to_owned()));
    assert!(paths("3").unwrap_err().contains("expected a path or a list of paths"));
}

#[test]
fn a_pattern_takes_its_files_in_the_order_of_their_names() {
    let names = ["b/1.jsonl", "b/10.jsonl", "b/2.jsonl", "b/deep/3.jsonl", "b/other.json", "[x].jsonl"];
    let folder = folder(&names);
    let check = |pattern: &str, expected: &[&str]| {
        let sources: Vec<String> = read_examples(folder.path().join(pattern), &Columns::default())
            .unwrap()
            .into_iter()
            .map(|example| example.source)
            .collect();
        assert_eq!(sources, expected, "{pattern}");
    };
    check("b/*.jsonl", &["b/1.jsonl", "b/10.jsonl", "b/2.jsonl"]);
    check("b/?.jsonl", &["b/1.jsonl", "b/2.jsonl"]);
    check("b/[12].jsonl", &["b/1.jsonl", "b/2.jsonl"]);
    check("*/1*.jsonl", &["b/1.jsonl", "b/10.jsonl"]);
    check("b/**/[23].jsonl", &["b/2.jsonl", "b/deep/3.jsonl"]);
    // Folders do not count as files.
    check("b/[o1]*", &["b/1.jsonl", "b/10.jsonl", "b/other.json"]);
    // The name of an existing file is not read as a pattern.
    check("[x].jsonl", &["[x].jsonl"]);
}

#[test]
fn several_files_are_one_dataset() {
    let news = columns("article", "highlights");
    let expected = [
        example("c0", "The sea rose. It fell.", &["Sea rises .\nSea falls ."]),
        example("c1", "A house burnt.", &["House burns ."]),
        example("c2", "Nothing new.", &["No news ."]),
    ];
    check(&fixture("articles-*.parquet"), &news, Ok(&expected));

    // A list keeps its own order, and the numbers in place of ids continue from file to file.
    let folder = folder(&["a.jsonl", "b.json"]);
    let list: Vec<PathBuf> = ["b.json", "a.jsonl"].map(|name| folder.path().join(name)).to_vec();
    let list = paths(&serde_json::to_string(&list).unwrap()).unwrap();
    assert_eq!(
        read_examples(&list, &Columns::default()).unwrap(),
        [example("1", "b.json", &["x"]), example("2", "a.jsonl", &["x"])]
    );
    // Errors name the file and the line in it.
    fs::write(folder.path().join("a.jsonl"), "\n{\"source\": \"one\"}").unwrap();
    let error = read_examples(list, &Columns::default()).unwrap_err().to_string();
    assert!(error.ends_with("a.jsonl:2: no column `target`; there are: source"), "{error}");
}

#[test]
fn pattern_errors() {
    let folder = folder(&["a.jsonl"]);
    let plain = Columns::default();
    check(&folder.path().join("*.parquet"), &plain, Err(": no file matches this pattern"));
    check(&folder.path().join("none/*.jsonl"), &plain, Err(": no file matches this pattern"));
    let error = read_examples(folder.path().join("[a.jsonl"), &plain).unwrap_err().to_string();
    assert!(error.contains("[a.jsonl: Pattern syntax error near position"), "{error}");
}

/// Makes `datasets--owner--set` as `hf download` leaves it, with links to blobs in place of files.
fn cache() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let repository = folder.path().join("datasets--owner--set");
    let snapshot = repository.join("snapshots").join(COMMIT);
    fs::create_dir_all(snapshot.join("en")).unwrap();
    fs::create_dir_all(repository.join("refs/refs/convert")).unwrap();
    fs::create_dir_all(repository.join("blobs")).unwrap();
    for (blob, file) in [("b0", "test-1.parquet"), ("b1", "train-2.parquet"), ("b2", "train-1.parquet")] {
        fs::copy(fixture("translation.parquet"), repository.join("blobs").join(blob)).unwrap();
        symlink(Path::new("../../../blobs").join(blob), snapshot.join("en").join(file)).unwrap();
    }
    symlink("../../blobs/incomplete", snapshot.join("broken.parquet")).unwrap();
    for revision in ["main", "v1.0", "refs/convert/parquet"] {
        fs::write(repository.join("refs").join(revision), COMMIT).unwrap();
    }
    fs::write(repository.join("refs/gone"), "0123").unwrap();
    (folder, snapshot)
}

#[test]
fn hugging_face_cache() {
    let (folder, snapshot) = cache();
    let cache = HubCache::new(folder.path());
    let test = vec![snapshot.join("en/test-1.parquet")];
    let train = vec![snapshot.join("en/train-1.parquet"), snapshot.join("en/train-2.parquet")];
    for (path, expected) in [
        ("owner/set/en/test-1.parquet", &test),
        ("owner/set@main/en/test-1.parquet", &test),
        ("owner/set@v1.0/en/test-1.parquet", &test),
        (&format!("owner/set@{COMMIT}/en/test-*"), &test),
        ("owner/set@refs/convert/parquet/en/test-1.parquet", &test),
        ("owner/set/en/train-*.parquet", &train),
        ("owner/set/**/train-*.parquet", &train),
    ] {
        let path = PathBuf::from(format!("hf://datasets/{path}"));
        assert_eq!(&DatasetPaths::from(&path).files(&cache).unwrap(), expected, "{}", path.display());
    }
    let prefixed = columns("translation.en", "translation.fr");
    check(&test[0], &prefixed, Ok(&read_examples(fixture("translation.parquet"), &prefixed).unwrap()));
}

#[test]
fn hugging_face_cache_errors() {
    let (folder, _) = cache();
    let root = folder.path().display().to_string();
    let cache = HubCache::new(folder.path());
    let check = |path: &str, expected: &str| {
        let error = DatasetPaths::from(Path::new(path)).files(&cache).unwrap_err().to_string();
        assert_eq!(error.replace(&root, "CACHE"), format!("{path}: {expected}"));
    };
    check(
        "hf://datasets/owner/other/data/test-*.parquet",
        "not in CACHE/datasets--owner--other: fetch it with `hf download --repo-type dataset owner/other --include \
         'data/test-*.parquet'`",
    );
    let snapshot = format!("CACHE/datasets--owner--set/snapshots/{COMMIT}");
    for file in ["en/none.parquet", "fr/*.parquet", "broken.parquet", "*.parquet", "en"] {
        check(
            &format!("hf://datasets/owner/set/{file}"),
            &format!(
                "not in {snapshot}: fetch it with `hf download --repo-type dataset owner/set --include '{file}'`"
            ),
        );
    }
    check(
        "hf://datasets/owner/set@v1.0/none.parquet",
        &format!(
            "not in {snapshot}: fetch it with `hf download --repo-type dataset owner/set --revision v1.0 --include \
             'none.parquet'`"
        ),
    );
    for revision in ["v2.0", "gone"] {
        check(
            &format!("hf://datasets/owner/set@{revision}/en/test-1.parquet"),
            &format!(
                "CACHE/datasets--owner--set has no revision `{revision}`, only {COMMIT}: name one as in \
                 hf://datasets/OWNER/NAME@REVISION/FILE"
            ),
        );
    }
    for path in [
        "hf://owner/set/a.parquet",
        "hf://models/owner/set/a.parquet",
        "hf://datasets/set/a.parquet",
        "hf://datasets/owner/set",
        "hf://datasets/owner/set/",
        "hf://datasets/owner/set@v1.0",
        "hf://datasets/owner/set@/a.parquet",
        "hf://datasets/owner//a.parquet",
        "hf://datasets/owner/set/../a.parquet",
    ] {
        check(path, "expected hf://datasets/OWNER/NAME/FILE or hf://datasets/OWNER/NAME@REVISION/FILE");
    }

    // Without `main` a revision has to be named, since a choice among several would be a guess.
    let refs = folder.path().join("datasets--owner--set/refs");
    fs::remove_file(refs.join("main")).unwrap();
    fs::create_dir(folder.path().join("datasets--owner--set/snapshots/00aa")).unwrap();
    check(
        "hf://datasets/owner/set/en/test-1.parquet",
        &format!(
            "CACHE/datasets--owner--set has no revision `main`, only 00aa, {COMMIT}: name one as in \
             hf://datasets/OWNER/NAME@REVISION/FILE"
        ),
    );
    // A download that was interrupted early may leave no snapshots.
    fs::remove_dir_all(folder.path().join("datasets--owner--set/snapshots")).unwrap();
    check(
        "hf://datasets/owner/set/a.parquet",
        "not in CACHE/datasets--owner--set: fetch it with `hf download --repo-type dataset owner/set --include \
         'a.parquet'`",
    );
}

/// The variables are those of huggingface_hub's `constants.py`.
#[test]
fn the_cache_is_where_the_environment_says() {
    let home = ("HOME", "/home/me");
    let check = |variables: &[(&str, &str)], expected: &str| {
        let cache = HubCache::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        });
        assert_eq!(cache.folder(), Path::new(expected));
        assert_eq!(cache.folder().as_os_str(), expected);
    };
    check(&[home], "/home/me/.cache/huggingface/hub");
    check(&[home, ("XDG_CACHE_HOME", "/cache")], "/cache/huggingface/hub");
    check(&[home, ("XDG_CACHE_HOME", "/cache"), ("HF_HOME", "/hf")], "/hf/hub");
    check(&[home, ("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old");
    check(&[home, ("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/hub")], "/hub");
    check(&[home, ("HF_HOME", ""), ("HF_HUB_CACHE", "")], "/home/me/.cache/huggingface/hub");
}
