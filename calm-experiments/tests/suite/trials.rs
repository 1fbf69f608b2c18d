//! Repeated calibrations, and every procedure, on runs with the made-up backbone.

use std::fs;

use calm_calibrate::{
    CalibrationOptions, ErrorProbability, LossKind, LossTable, PValue, Procedure, Tolerance, TrialOptions,
    calibrate,
};
use calm_experiments::answer::Answer;
use calm_experiments::experiment::{run, run_statistics};
use calm_experiments::jobs::OtherRuns;
use calm_experiments::plots::draw_all;
use calm_metrics::Loss;

use crate::made_up::{NUM_LAYERS, engine};
use crate::runs::{EXAMPLES, Setting};

/// One example: what was written and the layers of its tokens.
struct Output {
    text: String,
    exits: Vec<usize>,
}

fn outputs(setting: &Setting, out: &str, id: &str) -> Vec<Output> {
    let folder = setting.path(&format!("{out}/generations/calibration/{id}"));
    let mut shards: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    shards.sort();
    let mut outputs = Vec::new();
    for shard in shards {
        for line in fs::read_to_string(shard).unwrap().lines().skip(1) {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            outputs.push(Output {
                text: record["text"].as_str().unwrap().to_owned(),
                exits: serde_json::from_value(record["exit_layers"].clone()).unwrap(),
            });
        }
    }
    outputs
}

fn references(setting: &Setting) -> Vec<String> {
    let text = fs::read_to_string(setting.path("calibration.jsonl")).unwrap();
    let target = |line| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["target"].as_str().unwrap().to_owned()
    };
    text.lines().map(target).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn rows_are_what_calibrations_on_the_same_parts_give() {
    const THRESHOLDS: [f64; 4] = [0.7, 0.5, 0.3, 0.1];
    let setting = Setting::new();
    // References that the full model misses and early exits may hit, so that signed losses are of both signs.
    let file = setting.path("calibration.jsonl");
    let lines = fs::read_to_string(&file).unwrap();
    let lines = lines.lines().enumerate().map(|(index, line)| {
        let mut example: serde_json::Value = serde_json::from_str(line).unwrap();
        if index % 3 == 0 {
            example["target"] = "w3 w3 w3".into();
        }
        format!("{example}\n")
    });
    fs::write(&file, lines.collect::<String>()).unwrap();
    // A large epsilon, for violations of both kinds.
    let overrides = [
        "calibration.trials.count=9",
        "calibration.trials.seed=4",
        "calibration.epsilon=0.5",
        "sweep.thresholds=[0.7, 0.5, 0.3, 0.1]",
        "calibration.textual_deltas=[0.2, 0.5]",
        "calibration.risk_deltas=[0.1, 0.2, 0.3]",
        "calibration.signed_risk_deltas=[0.1, 0.2, 0.3]",
    ];
    let rows = setting.run("out", 2, &overrides).results.trials;
    assert_eq!(rows.len(), 3 * (2 + 3 + 3));

    let full = outputs(&setting, "out", "full");
    let early =
        THRESHOLDS.map(|threshold| outputs(&setting, "out", &format!("calm-softmax-{threshold}-tau4")));
    let references = references(&setting);
    let loss = |objective: &str, index: usize, example: usize| {
        let (early, full, reference) =
            (&early[index][example].text, &full[example].text, &references[example]);
        let difference = Loss::TokenF1.between(early, reference) - Loss::TokenF1.between(full, reference);
        match objective {
            "textual" => Loss::Chrf.between(early, full),
            "risk" => difference.max(0.0),
            _ => difference,
        }
    };
    let splits = TrialOptions { trials: 9, calibration_share: 0.8, seed: 4 }.splits(EXAMPLES).unwrap();
    let of_softmax: Vec<_> =
        rows.iter().filter(|(guarantee, _)| guarantee.measure == Some("softmax")).collect();
    assert_eq!(of_softmax.len(), 8);
    for (guarantee, row) in of_softmax {
        let losses = |examples: &[usize], index: usize| -> Vec<f64> {
            examples.iter().map(|&example| loss(guarantee.objective, index, example)).collect()
        };
        let kind =
            if guarantee.objective == "signed-risk" { LossKind::Difference } else { LossKind::UnitInterval };
        let epsilon = ErrorProbability::new(0.5).unwrap();
        let options = CalibrationOptions {
            epsilon,
            ..CalibrationOptions::new(Tolerance::new(guarantee.delta).unwrap(), kind)
        };
        let (mut thresholds, mut test_losses, mut layers) = (Vec::new(), Vec::new(), Vec::new());
        let (mut certified, mut pool_violations) = (0, 0);
        for split in &splits {
            let on_part = (0..4).map(|index| losses(&split.calibration, index)).collect();
            let on_part = LossTable::new(THRESHOLDS.to_vec(), on_part).unwrap();
            let calibration = calibrate(&on_part, &options).unwrap();
            let index = THRESHOLDS.iter().position(|&threshold| threshold == calibration.threshold);
            let outputs = index.map_or(&full, |index| &early[index]);
            let exits: Vec<usize> =
                split.test.iter().flat_map(|&example| outputs[example].exits.clone()).collect();
            let everything: Vec<usize> = (0..EXAMPLES).collect();
            certified += usize::from(index.is_some());
            thresholds.push(calibration.threshold);
            test_losses.push(index.map_or(0.0, |index| mean(&losses(&split.test, index))));
            layers.push(exits.iter().sum::<usize>() as f64 / exits.len() as f64);
            pool_violations +=
                usize::from(index.is_some_and(|index| mean(&losses(&everything, index)) > guarantee.delta));
        }
        assert_eq!((row.calibration_examples, row.test_examples), (28, 7));
        assert_eq!((row.trials, row.certified, guarantee.epsilon), (9, certified, 0.5));
        assert_eq!(
            (guarantee.procedure, guarantee.p_value, guarantee.decay),
            ("fixed-sequence", "betting", Some(4.0))
        );
        let close = |found: [f64; 4], values: &[f64]| {
            let std =
                mean(&values.iter().map(|value| (value - mean(values)).powi(2)).collect::<Vec<_>>()).sqrt();
            let mut sorted = values.to_vec();
            sorted.sort_by(f64::total_cmp);
            // Of 9 values the 5th percentile lies at the place 0.4 and the 95th at 7.6.
            let p5 = 0.6 * sorted[0] + 0.4 * sorted[1];
            let p95 = 0.4 * sorted[7] + 0.6 * sorted[8];
            for (found, expected) in found.into_iter().zip([mean(values), std, p5, p95]) {
                assert!((found - expected).abs() < 1e-9, "{row:?} {values:?}");
            }
        };
        close([row.threshold_mean, row.threshold_std, row.threshold_p5, row.threshold_p95], &thresholds);
        close([row.test_loss_mean, row.test_loss_std, row.test_loss_p5, row.test_loss_p95], &test_losses);
        close(
            [row.average_layers_mean, row.average_layers_std, row.average_layers_p5, row.average_layers_p95],
            &layers,
        );
        let test_violations = test_losses.iter().filter(|&&loss| loss > guarantee.delta).count();
        assert_eq!((row.test_violations, row.pool_violations), (test_violations, pool_violations));
        // P(Binomial(9, 0.5) > 6) = 46 / 512 and P(> 7) = 10 / 512.
        assert_eq!(row.accepted_violations, 7);
        assert!(row.speedup_mean > 0.0 && row.speedup_std >= 0.0);
    }
    assert!(rows.iter().any(|(_, row)| row.certified == 9) && rows.iter().any(|(_, row)| row.certified < 9));
    assert!(rows.iter().any(|(_, row)| row.threshold_std > 0.0));
}

#[test]
fn trials_that_certify_nothing_are_the_full_model() {
    let setting = Setting::new();
    let rows = setting.run("out", 1, &["calibration.textual_deltas=[0.001]"]).results.trials;
    for (_, row) in rows.iter().filter(|(guarantee, _)| guarantee.objective == "textual") {
        assert_eq!((row.trials, row.certified, row.test_violations, row.pool_violations), (50, 0, 0, 0));
        assert_eq!((row.threshold_mean, row.threshold_std, row.test_loss_mean), (1.0, 0.0, 0.0));
        assert_eq!((row.average_layers_mean, row.speedup_mean), (NUM_LAYERS as f64, 1.0));
        assert_eq!(row.accepted_violations, 5);
    }
}

#[test]
fn statistics_do_not_depend_on_the_number_of_threads() {
    let setting = Setting::new();
    setting.run("out", 1, &[]);
    let tables = setting.tables("out");
    let plan = setting.plan(&[]);
    for threads in [1, 5] {
        fs::remove_file(setting.path("out/trials.csv")).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run_statistics(&plan, &setting.path("out"))).unwrap();
        assert_eq!(setting.tables("out"), tables);
    }
}

#[test]
fn without_trials_their_table_is_empty_and_there_is_no_figure() {
    let setting = Setting::new();
    let plan = setting.plan(&["calibration.trials.count=0"]);
    let load = || Ok(engine(1, usize::MAX));
    let report = run(&plan, &setting.path("out"), OtherRuns::Keep, load).unwrap();
    assert!(report.results.trials.is_empty() && !report.results.calibration.is_empty());
    assert_eq!(fs::read_to_string(setting.path("out/trials.csv")).unwrap(), "");
    draw_all(&plan, &report.results, &setting.path("out/plots")).unwrap();
    assert!(!setting.path("out/plots/trials.svg").exists());
    assert!(!Answer::new(&plan, &report.results).text().contains("trials"));
}

#[test]
fn every_procedure_works_from_the_configuration() {
    let setting = Setting::new();
    setting.run("out", 1, &[]);
    let common = ["calibration.textual_deltas=[0.6]", "calibration.trials.count=5"];
    for name in Procedure::NAMES {
        let procedure = format!("calibration.procedure={name}");
        let plan = setting.plan(&[&common[..], &[&procedure]].concat());
        let results = run_statistics(&plan, &setting.path("out")).unwrap().results;
        assert_eq!((results.calibration.len(), results.trials.len()), (3 * 4, 3 * 4));
        for ((guarantee, row), calibration) in results.calibration.iter().zip(&results.calibrations) {
            assert_eq!((guarantee.procedure, calibration.procedure.name()), (name, name));
            // Half of 35 examples learn the order, rounded up.
            assert_eq!(row.calibration_examples, if name == "pareto" { 17 } else { EXAMPLES });
        }
        assert!(results.trials.iter().all(|(guarantee, row)| guarantee.procedure == name && row.trials == 5));
        assert!(results.calibration.iter().any(|(_, row)| !row.fallback), "{name}");
        assert!(results.trials.iter().any(|(_, row)| row.certified == 5), "{name}");
        let printed = Answer::new(&plan, &results).text();
        assert!(printed.contains("5 trials, each calibrated on 28 of the calibration examples"), "{printed}");
    }
}

#[test]
fn the_paper_mode_certifies_no_lower_thresholds() {
    let setting = Setting::new();
    let sharp = setting.run("out", 1, &[]).results;
    let plan = setting.plan(&["calibration.p_value=hoeffding-bentkus"]);
    let paper = run_statistics(&plan, &setting.path("out")).unwrap().results;
    assert!(paper.calibrations.iter().all(|calibration| calibration.p_value == PValue::HoeffdingBentkus));
    let pairs = || sharp.trials.iter().zip(&paper.trials);
    assert!(pairs().all(|((_, sharp), (_, paper))| sharp.average_layers_mean <= paper.average_layers_mean));
    assert!(pairs().any(|((_, sharp), (_, paper))| sharp.average_layers_mean < paper.average_layers_mean));
}

#[test]
fn too_few_examples_are_found_before_decoding() {
    let setting = Setting::new();
    let check = |overrides: &[&str], expected: &str| {
        let load = || Ok(engine(1, usize::MAX));
        let error = run(&setting.plan(overrides), &setting.path("out"), OtherRuns::Keep, load).unwrap_err();
        assert_eq!(format!("{error:#}"), expected);
        assert!(!setting.path("out").exists());
    };
    check(
        &["data.calibration_examples=2"],
        "trials cannot divide the calibration examples: 2 examples are too few to be split",
    );
    check(
        &["data.calibration_examples=3", "calibration.procedure=pareto", "calibration.split_share=0.8"],
        "the pareto procedure cannot divide the calibration examples: 2 examples are too few to be split",
    );
}
