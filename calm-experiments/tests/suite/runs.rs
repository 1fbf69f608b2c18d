//! Whole runs with the made-up backbone.

use std::fs;
use std::path::{Path, PathBuf};

use calm_core::{Generation, PolicySpec, Token};
use calm_engine::engine::TextCodec;
use calm_experiments::answer::Answer;
use calm_experiments::config::{Plan, parse};
use calm_experiments::experiment::{Report, run, run_statistics};
use calm_experiments::jobs::OtherRuns;
use calm_experiments::plots::draw_all;
use calm_experiments::statistics::SweepRow;
use calm_metrics::Loss;
use tempfile::TempDir;

use crate::configuration::VALID;
use crate::made_up::{NUM_LAYERS, Words, difficulty, engine, engine_without_classifier};
use crate::units::forge;

pub(crate) const EXAMPLES: usize = 35;
/// Full, three static depths below all, oracle, four thresholds of softmax and of classifier, one of state
/// below 1.
const TEST_SETTINGS: usize = 14;
/// Without static depths and oracle.
const CALIBRATION_SETTINGS: usize = 10;
const SHARDS: usize = 4;
const UNITS: usize = (TEST_SETTINGS + CALIBRATION_SETTINGS) * SHARDS;

pub(crate) struct Setting {
    folder: TempDir,
}

impl Setting {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for split in ["test", "calibration"] {
            let lines = (0..EXAMPLES).map(|index| {
                let source = source_text(index + if split == "test" { 0 } else { 100 });
                format!(
                    "{}\n",
                    serde_json::json!({"id": format!("{split}-{index}"), "source": source, "target": source})
                )
            });
            fs::write(folder.path().join(format!("{split}.jsonl")), lines.collect::<String>()).unwrap();
        }
        Self { folder }
    }

    pub(crate) fn plan(&self, overrides: &[&str]) -> Plan {
        let mut all: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        for split in ["test", "calibration"] {
            all.push(format!("data.{split}='{}'", self.path(&format!("{split}.jsonl")).display()));
        }
        parse(Path::new("a.toml"), VALID.to_owned(), &all).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn run(&self, out: &str, workers: usize, overrides: &[&str]) -> Report {
        run(&self.plan(overrides), &self.path(out), OtherRuns::Overwrite, || Ok(engine(workers, usize::MAX)))
            .unwrap()
    }

    /// All tables without the columns that depend on time.
    pub(crate) fn tables(&self, out: &str) -> String {
        let timed = ["seconds", "tokens_per_second", "test_speedup", "speedup_mean", "speedup_std"];
        let mut tables = String::new();
        for name in ["sweep.csv", "calibration.csv", "trials.csv"] {
            let mut reader = csv::Reader::from_path(self.path(out).join(name)).unwrap();
            let header = reader.headers().unwrap().clone();
            for record in reader.records() {
                let record = record.unwrap();
                let cells = header.iter().zip(&record).filter(|(column, _)| !timed.contains(column));
                tables += &cells.map(|(_, cell)| cell).collect::<Vec<_>>().join(",");
                tables.push('\n');
            }
        }
        tables
    }

    pub(crate) fn units(&self, out: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.path(out).join("generations")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }
}

fn source_text(index: usize) -> String {
    let words = (0..3 + index % 8).map(|position| format!("w{}", 4 + (index * 11 + position * 5) % 36));
    words.collect::<Vec<_>>().join(" ")
}

fn source_tokens(index: usize) -> Vec<Token> {
    Words.encode(&source_text(index)).unwrap()
}

fn first_line(path: &Path) -> String {
    fs::read_to_string(path).unwrap().lines().next().unwrap().to_owned()
}

#[test]
fn tables_have_the_agreed_columns() {
    let setting = Setting::new();
    setting.run("out", 1, &[]);
    assert_eq!(
        first_line(&setting.path("out/sweep.csv")),
        "policy,measure,threshold,decay,exits,static_layers,examples,tokens,mean_length,average_layers,executed_layers,\
         flops_per_token,seconds,tokens_per_second,bleu,chrf,rouge_l,token_f1,textual_distance,risk_difference,bytes_per_token,\
         quality_low,quality_high"
    );
    assert_eq!(
        first_line(&setting.path("out/calibration.csv")),
        "objective,delta,epsilon,policy,measure,decay,exits,procedure,p_value,threshold,fallback,calibration_examples,\
         empirical_loss,test_loss,test_average_layers,test_speedup"
    );
    assert_eq!(
        first_line(&setting.path("out/trials.csv")),
        "objective,delta,epsilon,policy,measure,decay,exits,procedure,p_value,calibration_examples,test_examples,trials,certified,\
         threshold_mean,threshold_std,threshold_p5,threshold_p95,test_loss_mean,test_loss_std,test_loss_p5,\
         test_loss_p95,average_layers_mean,average_layers_std,average_layers_p5,average_layers_p95,speedup_mean,\
         speedup_std,test_violations,pool_violations,accepted_violations"
    );
}

/// The answer comes first, in lines that fit a terminal, and as Markdown with the same numbers.
#[test]
fn the_answer_of_a_run_is_short() {
    let setting = Setting::new();
    let report = setting.run("out", 2, &[]);
    let plan = setting.plan(&[]);
    let text = Answer::new(&plan, &report.results).text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("full model: 4 layers, BLEU "), "{text}");
    // One line for each kind of guarantee: textual, risk and signed risk.
    let is_certified = |line: &&str| line.contains(" of 4 layers, ") && line.contains(", certified for ");
    let sentences = lines[1..4].iter().filter(|line| is_certified(line) || line.ends_with("is certified"));
    assert_eq!(sentences.count(), 3, "{text}");
    assert!(lines.iter().any(is_certified), "{text}");
    assert!(lines.iter().all(|line| line.chars().count() <= 100), "{text}");
    let guarantees =
        ["textual 0.1", "textual 0.3", "textual 0.6", "risk 0.25", "signed-risk 0.1", "signed-risk 0.2"];
    let markdown = fs::read_to_string(setting.path("out/results.md")).unwrap();
    for guarantee in guarantees {
        let row = lines.iter().find(|line| line.starts_with(&format!("{guarantee} ")));
        let cells: Vec<&str> = row.unwrap().split_whitespace().collect();
        let of_markdown =
            markdown.lines().find(|line| line.starts_with(&format!("| {guarantee} |"))).unwrap();
        let same: Vec<&str> = of_markdown.split_whitespace().filter(|cell| *cell != "|").collect();
        assert_eq!(cells, same);
    }
}

#[test]
fn every_file_of_a_run_is_there() {
    let setting = Setting::new();
    let report = setting.run("out", 2, &[]);
    let figures = draw_all(&setting.plan(&[]), &report.results, &setting.path("out/plots")).unwrap();
    let files = [&report.files[..], &figures].concat();
    let names: Vec<_> =
        files.iter().map(|file| file.strip_prefix(setting.path("out")).unwrap().to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "report.html",
            "results.md",
            "sweep.csv",
            "calibration.csv",
            "trials.csv",
            "summary.json",
            "plots/quality_vs_layers.svg",
            "plots/quality_vs_layers.png",
            "plots/calibration.svg",
            "plots/calibration.png",
            "plots/trials.svg",
            "plots/trials.png"
        ]
    );
    for file in &files {
        assert!(fs::metadata(file).unwrap().len() > 200, "{}", file.display());
    }
    let svg = fs::read_to_string(setting.path("out/plots/quality_vs_layers.svg")).unwrap();
    assert!(svg.starts_with("<svg width=\"720\" height=\"420\" viewBox=\"0 0 7200 4200\""));
    for text in [
        "average decoder layers per token",
        "BLEU",
        "softmax (τ = 4)",
        "state",
        "static",
        "oracle",
        "full model",
    ] {
        assert!(svg.contains(text), "{text}");
    }
    let svg = fs::read_to_string(setting.path("out/plots/trials.svg")).unwrap();
    for text in
        ["textual consistency", "risk consistency, signed", "loss = δ", "loss, mean ± std over trials"]
    {
        assert!(svg.contains(text), "{text}");
    }
    let png = fs::read(setting.path("out/plots/calibration.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    let summary: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(setting.path("out/summary.json")).unwrap()).unwrap();
    assert_eq!(summary["configuration"]["decode"]["max_tokens"], 12);
    // libtorch has no part in this.
    assert_eq!(summary["versions"], serde_json::json!({"calm_experiments": env!("CARGO_PKG_VERSION")}));
    assert_eq!(summary["seeds"], serde_json::json!({"examples": 7, "trials": 0}));
    assert_eq!(summary["machine"]["workers"], serde_json::json!([2]));
    assert_eq!(summary["units"], serde_json::json!({"total": UNITS, "decoded": UNITS}));
    assert_eq!(summary["calibrations"].as_array().unwrap().len(), report.results.calibration.len());
    assert_eq!(setting.units("out").len(), UNITS);
}

#[test]
fn rows_of_the_sweep_are_what_the_backbone_is_known_to_predict() {
    let setting = Setting::new();
    let sweep = setting.run("out", 2, &[]).results.sweep;
    let sources: Vec<Vec<Token>> = (0..EXAMPLES).map(source_tokens).collect();
    let tokens: usize = sources.iter().map(Vec::len).sum();
    let policies: Vec<&str> = sweep.iter().map(|row| row.policy).collect();
    assert_eq!(
        policies,
        [vec!["full"], vec!["static"; NUM_LAYERS], vec!["oracle"], vec!["calm"; 10]].concat()
    );

    let full = &sweep[0];
    assert_eq!((full.examples, full.tokens, full.average_layers), (EXAMPLES, tokens, NUM_LAYERS as f64));
    assert_eq!(full.executed_layers, tokens * NUM_LAYERS);
    assert_eq!((full.textual_distance, full.risk_difference), (0.0, 0.0));
    // It copies its source, which is the reference.
    assert!(
        [full.bleu, full.chrf, full.rouge_l, full.token_f1].iter().all(|score| (score - 100.0).abs() < 1e-9)
    );

    for (layers, row) in (1..=NUM_LAYERS).zip(&sweep[1..]) {
        let copies: Vec<(String, String)> = sources
            .iter()
            .map(|source| {
                // The end, too, is predicted only by layers that are deep enough for it.
                let token = |position: usize| {
                    let position = position.min(source.len() - 1);
                    if layers >= difficulty(source, position) { source[position] } else { 3 }
                };
                let mut output: Vec<Token> = Vec::new();
                while output.len() < 12 && output.last() != Some(&1) {
                    output.push(token(output.len()));
                }
                (Words.decode(&output).unwrap(), Words.decode(source).unwrap())
            })
            .collect();
        let mean = |loss: Loss| {
            copies.iter().map(|(output, source)| loss.between(output, source)).sum::<f64>() / EXAMPLES as f64
        };
        assert_eq!((row.static_layers, row.average_layers), (Some(layers), layers as f64));
        assert!((row.textual_distance - mean(Loss::Chrf)).abs() < 1e-12, "{row:?}");
        assert!((row.risk_difference - mean(Loss::TokenF1)).abs() < 1e-12, "{row:?}");
    }

    let oracle = &sweep[NUM_LAYERS + 1];
    let exits: usize = sources
        .iter()
        .flat_map(|source| (0..source.len()).map(|position| difficulty(source, position)))
        .sum();
    assert_eq!(oracle.average_layers, exits as f64 / tokens as f64);
    assert_eq!((oracle.executed_layers, oracle.textual_distance), (tokens * NUM_LAYERS, 0.0));
}

#[test]
fn flops_and_seconds_are_those_of_the_units() {
    let setting = Setting::new();
    let sweep = setting.run("out", 1, &[]).results.sweep;
    let engine = engine(1, 0);
    let shape = engine.model().shape();
    let check = |setting_id: &str, row: &SweepRow| {
        let policy: PolicySpec = setting_id.parse().unwrap();
        let (mut flops, mut seconds, mut tokens) = (0.0, 0.0, 0);
        for shard in 0..SHARDS {
            let file = setting.path(&format!("out/generations/test/{setting_id}/shard-{shard:04}.jsonl"));
            for line in fs::read_to_string(file).unwrap().lines().skip(1) {
                let record: serde_json::Value = serde_json::from_str(line).unwrap();
                let generation: Generation = serde_json::from_value(record.clone()).unwrap();
                let source = record["source_tokens"].as_u64().unwrap() as usize;
                flops += shape.sequence_flops(&policy, &generation, source);
                seconds += record["seconds"].as_f64().unwrap() + record["encoder_seconds"].as_f64().unwrap();
                tokens += generation.tokens.len();
            }
        }
        assert_eq!(tokens, row.tokens);
        assert!((flops / tokens as f64 / row.flops_per_token - 1.0).abs() < 1e-12, "{setting_id}");
        assert!((seconds / row.seconds - 1.0).abs() < 1e-9, "{setting_id}");
        assert!((row.tokens as f64 / row.seconds / row.tokens_per_second - 1.0).abs() < 1e-12);
    };
    check("full", &sweep[0]);
    check("static-2", &sweep[2]);
    check("calm-softmax-0.7-tau4", &sweep[NUM_LAYERS + 3]);
    check("calm-state-0.9", &sweep[NUM_LAYERS + 7]);
}

#[test]
fn a_threshold_of_one_and_all_static_layers_are_the_full_model_and_not_decoded_again() {
    let setting = Setting::new();
    let sweep = setting.run("out", 1, &[]).results.sweep;
    let full = &sweep[0];
    let same = |row: &&SweepRow| {
        row.seconds == full.seconds && row.flops_per_token == full.flops_per_token && row.bleu == full.bleu
    };
    let rows: Vec<_> =
        sweep.iter().filter(same).map(|row| (row.policy, row.threshold, row.static_layers)).collect();
    assert_eq!(rows, [("full", None, None), ("static", None, Some(NUM_LAYERS)), ("calm", Some(1.0), None)]);
    assert!(!setting.path("out/generations/test/calm-state-1").exists());
    assert!(!setting.path(&format!("out/generations/test/static-{NUM_LAYERS}")).exists());
}

#[test]
fn certified_rows_agree_with_the_sweep_and_with_each_other() {
    let setting = Setting::new();
    let results = setting.run("out", 1, &["calibration.textual_deltas=[0.001, 0.3, 0.5, 0.9]"]).results;
    assert_eq!(results.calibration.len(), 3 * 7);
    for rows in
        results.calibration.chunk_by(|(a, _), (b, _)| (a.objective, &a.policy) == (b.objective, &b.policy))
    {
        assert!(rows.is_sorted_by(|(a, first), (b, second)| {
            a.delta < b.delta && first.threshold >= second.threshold
        }));
    }
    for (guarantee, row) in &results.calibration {
        assert_eq!(row.calibration_examples, EXAMPLES);
        let of_sweep = results.sweep.iter().find(|sweep| {
            if row.fallback {
                sweep.policy == "full"
            } else {
                (sweep.measure, sweep.decay, sweep.threshold)
                    == (guarantee.measure, guarantee.decay, Some(row.threshold))
            }
        });
        let of_sweep = of_sweep.unwrap();
        assert_eq!(row.test_average_layers, of_sweep.average_layers);
        assert_eq!(row.test_speedup, results.sweep[0].seconds / of_sweep.seconds);
        match guarantee.objective {
            "textual" => assert!((row.test_loss - of_sweep.textual_distance).abs() < 1e-12),
            "signed-risk" => assert!((row.test_loss - of_sweep.risk_difference).abs() < 1e-12),
            _ => assert!(row.test_loss >= of_sweep.risk_difference - 1e-12),
        }
        if row.fallback {
            assert_eq!((row.threshold, row.empirical_loss, row.test_loss), (1.0, 0.0, 0.0));
        }
        // 35 examples cannot show that a loss is below 0.001.
        assert!(row.fallback || guarantee.delta > 0.001);
    }
    assert!(results.calibration.iter().any(|(_, row)| !row.fallback && row.threshold < 0.9));
}

#[test]
fn calibrations_do_not_depend_on_the_order_of_the_file() {
    let setting = Setting::new();
    let p_values = |out: &str| -> Vec<Vec<f64>> {
        let calibrations = setting.run(out, 1, &[]).results.calibrations;
        calibrations.into_iter().map(|calibration| calibration.p_values).collect()
    };
    let before = p_values("before");
    let file = setting.path("calibration.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    // From short to long, which the betting p-value would take for losses that are small.
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_by_key(|line| line.len());
    fs::write(&file, lines.join("\n")).unwrap();
    assert_eq!(p_values("after"), before);
}

#[test]
fn results_do_not_depend_on_the_number_of_workers() {
    let setting = Setting::new();
    setting.run("one", 1, &[]);
    setting.run("three", 3, &[]);
    assert_eq!(setting.tables("one"), setting.tables("three"));
}

#[test]
fn an_example_is_the_same_in_any_batch() {
    let setting = Setting::new();
    setting.run("batches", 1, &[]);
    setting.run("alone", 1, &["decode.batch_size=1", "decode.shard_size=3"]);
    assert_eq!(setting.tables("batches"), setting.tables("alone"));
}

#[test]
fn a_run_that_broke_down_continues_where_it_stopped() {
    let setting = Setting::new();
    setting.run("whole", 1, &[]);
    for workers in [1, 2] {
        let out = format!("broken{workers}");
        let plan = setting.plan(&[]);
        let error = run(&plan, &setting.path(&out), OtherRuns::Keep, || Ok(engine(workers, 60))).unwrap_err();
        assert!(format!("{error:#}").starts_with("test shard "), "{error:#}");
        assert_eq!(error.root_cause().to_string(), "the engine broke down");
        let finished = setting.units(&out);
        assert!(!finished.is_empty() && finished.len() < UNITS, "{}", finished.len());
        // What a killed process leaves of the unit it was writing.
        fs::write(finished[0].with_extension("99.tmp"), "{").unwrap();
        let modified = |path: &PathBuf| fs::metadata(path).unwrap().modified().unwrap();
        let before: Vec<_> = finished.iter().map(modified).collect();

        let report = setting.run(&out, workers, &[]);
        assert_eq!((report.units.total, report.units.decoded), (UNITS, UNITS - finished.len()));
        assert_eq!(finished.iter().map(modified).collect::<Vec<_>>(), before);
        assert_eq!(setting.tables("whole"), setting.tables(&out));
    }
}

#[test]
fn units_that_are_missing_damaged_or_of_another_run_are_decoded_again() {
    let setting = Setting::new();
    setting.run("out", 1, &[]);
    let tables = setting.tables("out");
    let units = setting.units("out");
    fs::remove_file(&units[3]).unwrap();
    let text = fs::read_to_string(&units[20]).unwrap();
    fs::write(&units[20], &text[..text.len() / 2]).unwrap();
    fs::write(&units[40], "").unwrap();
    forge(&units[60], |text| text.replace("\"model\":\"made up\"", "\"model\":\"other\""));
    // An earlier version wrote policies and shapes in another form.
    let earlier =
        r#"{"unit": {"format": 1, "policy": {"kind": "full"}}, "shape": {"num_decoder_layers": 4}}"#;
    fs::write(&units[80], earlier).unwrap();
    let full = setting.path("out/generations/test/full/shard-0000.jsonl");
    let kept = fs::read(&full).unwrap();
    fs::write(&full, earlier).unwrap();
    let error = run_statistics(&setting.plan(&[]), &setting.path("out")).unwrap_err().to_string();
    assert!(
        error.ends_with("shard-0000.jsonl: its file format is that of another version, an earlier one: it has to be decoded again"),
        "{error}"
    );
    fs::write(&full, kept).unwrap();
    let report = setting.run("out", 1, &[]);
    assert_eq!(report.units.decoded, 5);
    assert_eq!(setting.tables("out"), tables);
    assert_eq!(setting.run("out", 1, &[]).units.decoded, 0);
}

#[test]
fn only_what_a_change_concerns_is_decoded_again() {
    let setting = Setting::new();
    setting.run("out", 1, &[]);
    let check = |overrides: &[&str], expected: usize| {
        assert_eq!(setting.run("out", 1, overrides).units.decoded, expected, "{overrides:?}");
    };
    check(&["calibration.textual_deltas=[0.2]", "calibration.risk='chrf'", "plots.quality='chrf'"], 0);
    check(&["sweep.thresholds=[0.9, 0.7, 0.5, 0.2, 0.1]"], 2 * 2 * SHARDS);
    check(&["sweep.measure.softmax.decay=1"], 2 * 4 * SHARDS);
    check(&["decode.max_tokens=9"], UNITS);
    check(&["decode.batch_size=5"], UNITS);
    check(&["data.columns.prefix='w5 '"], UNITS);
}

#[test]
fn statistics_need_the_files_alone() {
    let setting = Setting::new();
    setting.run("out", 1, &[]);
    let (tables, plan) = (setting.tables("out"), setting.plan(&[]));
    fs::remove_file(setting.path("out/sweep.csv")).unwrap();
    run_statistics(&plan, &setting.path("out")).unwrap();
    assert_eq!(setting.tables("out"), tables);

    let missing = setting.path("out/generations/test/oracle/shard-0002.jsonl");
    fs::remove_file(&missing).unwrap();
    let error = run_statistics(&plan, &setting.path("out")).unwrap_err();
    assert!(format!("{error:#}").contains(missing.to_str().unwrap()), "{error:#}");
    let error = run_statistics(&setting.plan(&["decode.max_tokens=5"]), &setting.path("out")).unwrap_err();
    assert!(format!("{error:#}").contains("its maximal length differs"), "{error:#}");
}

#[test]
fn limits_take_the_same_examples_again() {
    let setting = Setting::new();
    let ids = |out: &str| {
        let file = setting.path(out).join("generations/test/full/shard-0000.jsonl");
        let text = fs::read_to_string(file).unwrap();
        let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["example"].to_string();
        text.lines().skip(1).map(id).collect::<Vec<_>>()
    };
    let sizes = ["decode.shard_size=100", "data.calibration_examples=5"];
    setting.run("five", 1, &[&sizes[..], &["data.test_examples=5"]].concat());
    setting.run("nine", 1, &[&sizes[..], &["data.test_examples=9"]].concat());
    setting.run("seed", 1, &[&sizes[..], &["data.test_examples=9", "seed=8"]].concat());
    setting.run("all", 1, &[&sizes[..], &["data.test_examples=1000"]].concat());
    let (five, nine) = (ids("five"), ids("nine"));
    assert_eq!((five.len(), nine.len(), ids("all").len()), (5, 9, EXAMPLES));
    assert!(five.iter().all(|id| nine.contains(id)));
    assert_ne!(nine, ids("seed"));
    assert_ne!(nine, ids("all")[..9]);
}

#[test]
fn a_setting_that_does_not_fit_the_model_is_found_before_decoding() {
    let setting = Setting::new();
    let check = |overrides: &[&str], expected: &str| {
        let load = || Ok(engine_without_classifier());
        let error = run(&setting.plan(overrides), &setting.path("out"), OtherRuns::Keep, load).unwrap_err();
        assert!(format!("{error:#}").contains(expected), "{error:#}");
        assert!(!setting.path("out/generations").exists());
    };
    check(&[], "needs an exit classifier");
    check(&["sweep.measures=['state']", "sweep.static_layers=[2, 9]"], "decoder's 4 layers, not 9");
}

/// What is certified needs no test outputs, and the test split of what is not certified no decoding.
#[test]
fn the_test_split_may_be_decoded_for_certified_thresholds_alone() {
    let setting = Setting::new();
    let settings = ["calibration.textual_deltas=[0.3, 0.6]", "sweep.policies=['patience-1']"];
    let all = setting.run("all", 1, &settings);
    let certified = setting.run("certified", 2, &[&settings[..], &["sweep.certified_only=true"]].concat());
    let guarantees = |report: &Report| -> Vec<(String, f64, f64, f64)> {
        let rows = report.results.calibration.iter();
        rows.map(|(of, row)| (of.policy.clone(), of.delta, row.threshold, row.test_loss)).collect()
    };
    assert_eq!(guarantees(&all), guarantees(&certified));
    let of_policy =
        |report: &Report, kind: &str| report.results.sweep.iter().filter(|row| row.policy == kind).count();
    for kind in ["full", "static", "oracle", "patience"] {
        assert_eq!(of_policy(&all, kind), of_policy(&certified, kind), "{kind}");
    }
    let thresholds: std::collections::BTreeSet<String> = certified
        .results
        .calibration
        .iter()
        .filter(|(_, row)| !row.fallback)
        .map(|(of, row)| of.policy.replace('*', &row.threshold.to_string()))
        .collect();
    let rows = certified.results.sweep.iter().filter(|row| row.policy == "calm");
    let rows: std::collections::BTreeSet<String> = rows.map(|row| row.spec.to_string()).collect();
    assert_eq!(rows, thresholds);
    assert!(certified.units.total < all.units.total);

    // The tables come from the files again, and nothing is missing.
    let plan = setting.plan(&[&settings[..], &["sweep.certified_only=true"]].concat());
    let again = run_statistics(&plan, &setting.path("certified")).unwrap();
    assert_eq!(guarantees(&again), guarantees(&certified));
}
