//! Several tasks in one table.

use std::fs;
use std::path::Path;

use calm_engine::engine::EngineOptions;
use calm_experiments::comparison::{Comparison, RunOptions, run};
use calm_experiments::jobs::OtherRuns;

use crate::configuration::VALID;
use crate::made_up::engine;
use crate::runs::Setting;

/// Two tasks that differ in quality and in length.
fn text(setting: &Setting) -> String {
    let [test, calibration] = ["test.jsonl", "calibration.jsonl"].map(|name| setting.path(name));
    let data = format!("data.test = '{}'\ndata.calibration = '{}'", test.display(), calibration.display());
    // What stands before the first section is at the top.
    let (top, sections) = VALID.split_once("[data]").unwrap();
    let sections =
        sections.replace("oracle = true", "oracle = true\npolicies = [\"self-speculative\", \"patience-1\"]");
    let sections = sections.replace("[0.3, 0.1, 0.6]", "[0.3, 0.1, 0.9]");
    let series = "[[sweep.series]]\npolicy = \"static-*\"\nthresholds = [3, 1, 2]\n\
                  [[sweep.series]]\npolicy = \"shallow-deep-2-*\"\n";
    format!(
        "{top}\n[compare]\ndelta = 0.9\nbatch_sizes = [1, 4]\nexamples = 6\nrounds = 1\n\
         [[tasks]]\ntask = \"words\"\n{data}\nplots.quality = \"chrf\"\n\
         [[tasks]]\ntask = \"short\"\n{data}\ndecode.max_tokens = 5\n\
         [data]{sections}\n{series}"
    )
}

fn comparison(text: String, overrides: &[&str]) -> Result<Option<Comparison>, String> {
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    Comparison::parse(Path::new("a.toml"), text, &overrides).map_err(|error| error.to_string())
}

fn options(statistics_only: bool) -> RunOptions {
    RunOptions { engine: EngineOptions::default(), finished_run: OtherRuns::Overwrite, statistics_only }
}

#[test]
fn a_task_lies_over_the_file_and_overrides_over_both() {
    let setting = Setting::new();
    let tasks = |overrides: &[&str]| comparison(text(&setting), overrides).unwrap().unwrap().tasks;
    let plans = tasks(&[]);
    let names: Vec<&str> = plans.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["words", "short"]);
    let of =
        |index: usize| (plans[index].1.max_tokens, plans[index].1.batch_size, plans[index].1.quality.name());
    assert_eq!((of(0), of(1)), ((12, 4, "chrf"), (5, 4, "bleu")));
    let plans = tasks(&["decode.max_tokens=7"]);
    assert_eq!([plans[0].1.max_tokens, plans[1].1.max_tokens], [7, 7]);
    assert!(comparison(VALID.to_owned(), &[]).unwrap().is_none());
}

#[test]
fn what_is_wrong_with_a_comparison_is_said() {
    let setting = Setting::new();
    let check = |from: &str, to: &str, expected: &str| {
        let changed = text(&setting).replacen(from, to, 1);
        let found = comparison(changed, &[]).unwrap_err();
        assert!(found.contains(expected), "{found}\ninstead of {expected}");
    };
    check("task = \"short\"", "", "needs a name, as `task = \"translation\"`");
    check("task = \"short\"", "task = \"words\"", "task: words is there twice");
    check("task = \"short\"", "task = \"../up\"", "must be of letters, digits, hyphens and underscores");
    check("delta = 0.9", "delta = 0.8", "compare.delta: 0.8 is none of the textual deltas of [calibration]");
    check("delta = 0.9", "delta = 0.9\nengines = [\"gpu\"]", "compare.engines[0]: unknown engine `gpu`");
    check("delta = 0.9", "delta = 0.9\nengines = [\"cpu-int4\"]", "compare.engines[0]: unknown");
    check("delta = 0.9", "delta = 0.9\nengines = [\"libtorch-int8\"]", "libtorch has f32 alone");
    check("rounds = 1", "rounds = 0", "compare.rounds: ");
    check(
        "policy = \"static-*\"",
        "policy = \"static-2\"",
        "`static-2` is no policy with a * for its threshold",
    );
    check(
        "policy = \"shallow-deep-2-*\"",
        "policy = \"calm-softmax-*-tau4\"",
        "calm-softmax-*-tau4 is there twice",
    );
    check("thresholds = [3, 1, 2]", "thresholds = []", "the policy static-* has no thresholds");
    let without_section = text(&setting).replacen(
        "[compare]\ndelta = 0.9\nbatch_sizes = [1, 4]\nexamples = 6\nrounds = 1",
        "",
        1,
    );
    let found = comparison(without_section, &[]).unwrap_err();
    assert!(found.contains("needs a section [compare]"), "{found}");
}

/// The cells of a row by the names of their columns.
type Cells = std::collections::BTreeMap<String, String>;

fn cells(path: &Path) -> Vec<Cells> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    reader.deserialize().collect::<Result<_, _>>().unwrap()
}

fn number(row: &Cells, column: &str) -> f64 {
    row[column].parse().unwrap()
}

#[test]
fn each_method_is_a_row_of_each_task() {
    let setting = Setting::new();
    let comparison = comparison(text(&setting), &[]).unwrap().unwrap();
    let out = setting.path("out");
    let load = |_: &Path, options: &EngineOptions| Ok(engine(options.workers.max(1), usize::MAX));
    let report = run(&comparison, &out, &options(false), &load).unwrap();
    for file in &report.files {
        assert!(file.is_file(), "{}", file.display());
    }
    let rows = cells(&out.join("compare.csv"));
    let methods = [
        ("full model", "full"),
        ("softmax (τ = 4)", "certified"),
        ("state", "certified"),
        ("classifier", "certified"),
        ("static", "certified"),
        ("shallow-deep-2", "certified"),
        ("self-speculative", "exact"),
        ("patience-1", "measured"),
        ("oracle", "bound"),
    ];
    assert_eq!(rows.len(), 2 * methods.len());
    for (index, row) in rows.iter().enumerate() {
        let (method, promise) = methods[index % methods.len()];
        assert_eq!(
            (row["task"].as_str(), row["method"].as_str()),
            (["words", "short"][index / methods.len()], method)
        );
        assert!(row["promise"] == promise || row["promise"] == "none-certified", "{row:?}");
        // What a row says is what the experiment of its task says of the policy.
        let folder = out.join(&row["task"]);
        let sweep = cells(&folder.join("sweep.csv"));
        let of_sweep = sweep.iter().find(|of_sweep| {
            number(of_sweep, "average_layers") == number(row, "average_layers")
                && number(of_sweep, "executed_layers") / number(of_sweep, "tokens")
                    == number(row, "executed_layers")
        });
        assert!(of_sweep.is_some(), "{row:?}");
        let [low, quality, high] = ["quality_low", "quality", "quality_high"].map(|key| number(row, key));
        assert!(low <= quality && quality <= high);
        if promise == "certified" && row["promise"] == "certified" {
            let certified = cells(&folder.join("calibration.csv"));
            let of_policy = certified.iter().find(|certified| {
                let family = certified["policy"].replace('*', &number(certified, "threshold").to_string());
                certified["objective"] == "textual" && certified["delta"] == "0.9" && family == row["policy"]
            });
            assert_eq!(number(of_policy.unwrap(), "test_loss"), number(row, "test_loss"));
        }
        if promise == "exact" {
            assert_eq!(row["test_loss"], "0");
        }
        for batch in ["1", "4"] {
            let speed = &row[&format!("tokens_per_second cpu batch {batch}")];
            assert_eq!(speed.is_empty(), promise == "bound", "{row:?}");
            if !speed.is_empty() {
                let decoder = &row[&format!("decoder_tokens_per_second cpu batch {batch}")];
                assert!(speed.parse::<f64>().unwrap() <= decoder.parse::<f64>().unwrap());
            }
        }
    }
    for text in ["words: textual delta 0.9", "short: textual delta 0.9", "self-speculative", "cpu x4"] {
        assert!(report.table.contains(text), "{}", report.table);
    }
    // Shallower static depths are less conservative: layers are a knob as thresholds are.
    assert!(rows.iter().any(|row| row["policy"].starts_with("static-") && row["policy"] != "static-4"));

    // The same table without a model.
    let before = fs::read_to_string(out.join("compare.csv")).unwrap();
    let no_model = |_: &Path, _: &EngineOptions| anyhow::bail!("no model");
    let again = run(&comparison, &out, &options(true), &no_model).unwrap();
    assert_eq!((again.table, fs::read_to_string(out.join("compare.csv")).unwrap()), (report.table, before));
}
