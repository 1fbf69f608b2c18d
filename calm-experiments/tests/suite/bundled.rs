//! The configurations below `configs`, and the switch to the real data that their comments show.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use assert_cmd::cargo::CommandCargoExt;
use calm_data::read_examples;
use calm_experiments::comparison::Comparison;
use calm_experiments::config::{Plan, load, parse};
use calm_experiments::dataset::Dataset;
use calm_experiments::paper::Paper;
use calm_metrics::{Loss, Metric};
use tempfile::TempDir;

/// A task of the paper, and files of its real data in small.
struct Task {
    config: &'static str,
    metric: (Loss, Metric),
    /// A file of calm-data's tests, in the shape of the real files.
    fixture: &'static str,
    /// The fixture's first example.
    source: &'static str,
    references: &'static [&'static str],
}

const TASKS: [Task; 3] = [
    Task {
        config: "wmt.toml",
        metric: (Loss::Chrf, Metric::Bleu),
        fixture: "translation.parquet",
        source: "translate English to French: a red house",
        references: &["une maison rouge"],
    },
    Task {
        config: "cnndm.toml",
        metric: (Loss::RougeL, Metric::RougeL),
        fixture: "articles-00000-of-00002.parquet",
        source: "summarize: The sea rose. It fell.",
        references: &["Sea rises .\nSea falls ."],
    },
    Task {
        config: "squad.toml",
        metric: (Loss::TokenF1, Metric::TokenF1),
        fixture: "questions.parquet",
        source: "question: What is blue? context: The sea is blue.",
        references: &["The sea", "sea"],
    },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn fixture(task: &Task) -> PathBuf {
    root().join("calm-data/tests/fixtures").join(task.fixture)
}

/// The configuration with its comments `# KEY = VALUE` in place of the lines that they are an alternative to.
fn with_real_data(config: &str) -> String {
    let text = fs::read_to_string(root().join("configs").join(config)).unwrap();
    let keys = ["group", "test", "calibration", "columns", "max_tokens", "max_source_tokens"];
    let key = |line: &str| keys.into_iter().find(|key| line.starts_with(&format!("{key} = ")));
    let comment =
        |line: &'_ str| line.strip_prefix("# ").filter(|line| key(line).is_some()).map(str::to_owned);
    let alternatives: Vec<String> = text.lines().filter_map(comment).collect();
    let found: Vec<_> = alternatives.iter().filter_map(|line| key(line)).collect();
    // Only the questions of SQuAD come in groups.
    let expected = if config == "squad.toml" { &keys[..] } else { &keys[1..] };
    assert_eq!(found, expected, "{config}");
    let kept = text.lines().filter(|line| key(line).is_none());
    kept.map(|line| comment(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

fn real_plan(task: &Task) -> Plan {
    parse(Path::new(task.config), with_real_data(task.config), &[]).unwrap()
}

#[test]
fn all_are_valid() {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("configs")).unwrap() {
        let path = entry.unwrap().path();
        // A measure of examples/measure-entropy, whose tests run it.
        if path.ends_with("entropy.toml") {
            continue;
        }
        if path.extension().is_some_and(|extension| extension == "toml") {
            if Paper::load(&path, &[]).unwrap().is_none() && Comparison::load(&path, &[]).unwrap().is_none() {
                load(&path, &[]).unwrap();
            }
            names.push(path.file_name().unwrap().to_owned());
        }
    }
    names.sort();
    assert_eq!(names, ["cnndm.toml", "compare.toml", "llm.toml", "paper.toml", "squad.toml", "wmt.toml"]);
}

#[test]
fn each_task_has_its_metric_and_its_bundled_data() {
    for task in TASKS {
        let plan = load(&root().join("configs").join(task.config), &[]).unwrap();
        assert_eq!((plan.textual_distance(), plan.quality), task.metric);
        assert_eq!(plan.risk(), plan.textual_distance());
        let mut plan = plan;
        for dataset in [&mut plan.test, &mut plan.calibration] {
            let path = root().join(dataset.paths.to_string());
            let examples = read_examples(path.as_path(), &dataset.columns).unwrap();
            assert_eq!(examples.len(), 2000, "{}", path.display());
            assert!(dataset.limit.is_some_and(|limit| limit < 2000));
            dataset.paths = path.into();
        }
        // No example is in both, even if all are taken.
        (plan.test.limit, plan.calibration.limit) = (None, None);
        Dataset::read_splits(&plan).unwrap();
    }
}

#[test]
fn the_lines_for_the_real_data_fit_its_files() {
    for task in TASKS {
        let plan = real_plan(&task);
        assert_eq!(plan.max_source_tokens, Some(512));
        for dataset in [&plan.test, &plan.calibration] {
            assert!(dataset.paths.to_string().starts_with("hf://datasets/"), "{}", dataset.paths);
            let examples = read_examples(fixture(&task), &dataset.columns).unwrap();
            assert_eq!(examples[0].source, task.source);
            assert_eq!(examples[0].references, task.references);
        }
    }
}

/// Without the files a run says how to get them; with them it goes on to the model, which is not there.
#[test]
fn the_real_data_come_from_hugging_faces_cache() {
    let folder = TempDir::new().unwrap();
    for task in TASKS {
        let cache = folder.path().join(format!("{}-cache", task.config));
        fs::write(folder.path().join(task.config), with_real_data(task.config)).unwrap();
        let error = |more: &[String]| {
            let output = Command::cargo_bin("calm-experiments")
                .unwrap()
                .current_dir(folder.path())
                .env("HF_HUB_CACHE", &cache)
                .args([task.config, "--set", "model=absent", "--set", "data.test_examples=1"])
                .args(["--set", "calibration.trials.count=0"])
                .args(more)
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(1));
            String::from_utf8(output.stderr).unwrap()
        };

        let path = real_plan(&task).test.paths.to_string();
        let parts: Vec<_> = path.split('/').collect();
        let [_, _, _, owner, name, file @ ..] = parts.as_slice() else { panic!("{path}") };
        let file = file.join("/");
        let command = format!("`hf download --repo-type dataset {owner}/{name} --include '{file}'`");
        let message = error(&[]);
        assert!(message.contains(&command), "{message}\n{command}");

        let repository = cache.join(format!("datasets--{owner}--{name}"));
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::write(repository.join("refs/main"), "0a1b").unwrap();
        for file in [&path, &real_plan(&task).calibration.paths.to_string()] {
            let below = file.split('/').skip(5).collect::<Vec<_>>().join("/");
            let file = repository.join("snapshots/0a1b").join(below.replace('*', "00000-of-00001"));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::copy(fixture(&task), file).unwrap();
        }
        // Both are the same fixture, which is refused unless it is divided.
        let message = error(&["--set".to_owned(), format!("data.calibration={path}")]);
        assert!(message.contains("absent/config.json"), "{message}");
    }
}
