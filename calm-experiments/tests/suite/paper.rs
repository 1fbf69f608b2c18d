//! The page of the paper's figures, with a made-up backbone.

use std::fs;
use std::path::Path;

use calm_engine::engine::EngineOptions;
use calm_experiments::jobs::OtherRuns;
use calm_experiments::paper::{Paper, run};
use calm_experiments::tasks::RunOptions;

use crate::configuration::VALID;
use crate::made_up::engine;
use crate::runs::Setting;

/// A task for the first model, and one for the second.
fn text(setting: &Setting) -> String {
    let [test, calibration] = ["test.jsonl", "calibration.jsonl"].map(|name| setting.path(name));
    let data = format!("data.test = '{}'\ndata.calibration = '{}'", test.display(), calibration.display());
    let (top, sections) = VALID.split_once("[data]").unwrap();
    let policies =
        "\"shallow-cache-1\", \"perturbed-sampling-0\", \"perturbed-layer-0\", \"calm-softmax-0.5\"";
    format!(
        "{top}\n\
         [[tasks]]\ntask = \"words\"\n{data}\n\
         paper = {{ dataset = \"wmt\", policies = [{policies}] }}\n\
         [[tasks]]\ntask = \"small\"\n{data}\npaper = {{ dataset = \"wmt\", model = \"second\" }}\n\
         [data]{sections}"
    )
}

fn paper(text: String) -> Result<Option<Paper>, String> {
    Paper::parse(Path::new("a.toml"), text, &[]).map_err(|error| error.to_string())
}

fn options(statistics_only: bool) -> RunOptions {
    RunOptions { engine: EngineOptions::default(), finished_run: OtherRuns::Overwrite, statistics_only }
}

#[test]
fn the_page_has_each_figure_and_is_made_of_files_alone() {
    let setting = Setting::new();
    let paper = paper(text(&setting)).unwrap().unwrap();
    let out = setting.path("out");
    let load = |_: &Path, options: &EngineOptions| Ok(engine(options.workers.max(1), usize::MAX));
    let files = run(&paper, &out, &options(false), &load).unwrap();
    let page = out.join("report.html");
    assert!(files.contains(&page) && files.iter().all(|file| file.exists()));
    let html = fs::read_to_string(&page).unwrap();
    let figures = [
        "Section 3.3",
        "Figure 2a",
        "Figure 2b",
        "Figure 2c",
        "Figure 3",
        "Figures 4 and B.5",
        "Figure B.1",
        "Figure B.2",
        "Figure B.3",
        "Figure B.4",
        "Figure B.6",
        "Figure B.7",
        "Figure B.8",
        "Table 1",
        "Table 2",
        "Table D.1",
    ];
    for figure in figures {
        assert!(html.contains(&format!("<h2>{figure}")), "{figure}");
    }
    // Numbers of the paper, and of the backbone whose layers are right from some layer on.
    let unescaped = html.replace("&#x2f;", "/");
    for number in ["39 (10 to 82)", "no tokenizer", "3.35 / ×0.66 / ×2.01", "0.51 / 0.34 / 0.24"] {
        assert!(unescaped.contains(number), "{number}");
    }
    assert!(html.contains("as in the paper"));
    assert!(unescaped.contains("href=\"words/report.html\"") && out.join("words/report.html").exists());

    let scores = fs::read_to_string(out.join("classifiers.csv")).unwrap();
    let mut lines = scores.lines();
    assert_eq!(lines.next(), Some("dataset,objective,layer,f1"));
    // Two objectives, three layers below the last, and the first model alone.
    assert_eq!(lines.clone().count(), 2 * 3);
    for line in lines {
        let f1: f64 = line.rsplit(',').next().unwrap().parse().unwrap();
        assert!(line.starts_with("wmt,") && (0.0..=1.0).contains(&f1), "{line}");
    }

    let no_engine = |_: &Path, _: &EngineOptions| anyhow::bail!("nothing is decoded");
    run(&paper, &out, &options(true), &no_engine).unwrap();
    assert_eq!(fs::read_to_string(&page).unwrap(), html);
}

#[test]
fn what_is_wrong_with_a_page_is_said() {
    let setting = Setting::new();
    let check = |from: &str, to: &str, expected: &str| {
        let changed = text(&setting).replacen(from, to, 1);
        let found = paper(changed).unwrap_err();
        assert!(found.contains(expected), "{found}\ninstead of {expected}");
    };
    check("model = \"second\"", "model = \"main\"", "the task words stands for the same dataset and model");
    check(
        "paper = { dataset = \"wmt\", model = \"second\" }",
        "",
        "small does not say what of the paper it stands for",
    );
    check("dataset = \"wmt\"", "dataset = \"c4\"", "c4");
    check("oracle = true", "oracle = true\ncertified_only = true", "sweep.certified_only: must be false");
    check("\"shallow-cache-1\"", "\"shallow-cache-1\", \"shallow-cache-1\"", "is there twice");
    assert!(paper(VALID.to_owned()).unwrap().is_none());
}
