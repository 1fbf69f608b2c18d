//! What the splits of a run are made of.

use std::collections::HashSet;
use std::fs;

use calm_experiments::config::Plan;
use calm_experiments::dataset::Dataset;

use crate::runs::{EXAMPLES, Setting};
use calm_experiments::statistics::Results;

fn ids(dataset: &Dataset) -> Vec<String> {
    dataset.examples.iter().map(|example| example.id.clone()).collect()
}

/// `test` names the data of both splits.
fn same_data(setting: &Setting, test_examples: usize, calibration_examples: Option<usize>) -> Plan {
    let mut plan = setting.plan(&[]);
    plan.calibration.paths = plan.test.paths.clone();
    plan.test.limit = Some(test_examples);
    plan.calibration.limit = calibration_examples;
    plan
}

#[test]
fn the_same_data_for_both_splits_are_divided() {
    let setting = Setting::new();
    let [test, calibration] = Dataset::read_splits(&same_data(&setting, 10, None)).unwrap();
    let both: HashSet<_> = ids(&test).into_iter().chain(ids(&calibration)).collect();
    assert_eq!((test.examples.len(), calibration.examples.len()), (10, EXAMPLES - 10));
    assert_eq!(both.len(), EXAMPLES);

    // The test split is the one that other calibration data would leave; a limit takes some of the rest.
    let mut plan = setting.plan(&[]);
    plan.test.limit = Some(10);
    assert_eq!(ids(&Dataset::read_splits(&plan).unwrap()[0]), ids(&test));
    let [_, some] = Dataset::read_splits(&same_data(&setting, 10, Some(5))).unwrap();
    assert_eq!(some.examples.len(), 5);
    assert!(ids(&some).iter().all(|id| ids(&calibration).contains(id)));
    // Both follow the file, and the seed decides.
    let place = |id: &String| id.rsplit_once('-').unwrap().1.parse::<usize>().unwrap();
    assert!(ids(&calibration).iter().map(place).is_sorted());
    let other = Plan { seed: 8, ..same_data(&setting, 10, None) };
    assert_ne!(ids(&Dataset::read_splits(&other).unwrap()[0]), ids(&test));

    for limit in [EXAMPLES, EXAMPLES + 1] {
        let error = Dataset::read_splits(&same_data(&setting, limit, None)).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("data.test_examples = {limit} leaves none for calibration")),
            "{error}"
        );
    }
}

#[test]
fn two_names_of_one_file_are_noticed() {
    let setting = Setting::new();
    let check = |edit: &dyn Fn(&mut Plan), expected: &str| {
        let mut plan = setting.plan(&[]);
        edit(&mut plan);
        let error = Dataset::read_splits(&plan).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\ninstead of {expected}");
    };
    let test = setting.path("test.jsonl");
    let folder = test.parent().unwrap();
    let other_spelling = folder.join("..").join(folder.file_name().unwrap()).join("test.jsonl");
    check(&|plan| plan.calibration.paths = other_spelling.clone().into(), "is a calibration example of");
    // Some of it, under the ids that it has or under its lines.
    let text = fs::read_to_string(&test).unwrap();
    let part = setting.path("part.jsonl");
    fs::write(&part, text.lines().skip(20).collect::<Vec<_>>().join("\n")).unwrap();
    check(&|plan| plan.calibration.paths = part.clone().into(), "the test example test-20 of");
    let without_ids = setting.path("without.jsonl");
    fs::write(&without_ids, fs::read_to_string(&part).unwrap().replace("\"id\"", "\"name\"")).unwrap();
    check(&|plan| plan.calibration.paths = without_ids.clone().into(), "have the same texts under other ids");

    // A text that comes again by chance is no reason to refuse the rest.
    let first = text.lines().next().unwrap().replace("test-0", "again");
    let calibration = fs::read_to_string(setting.path("calibration.jsonl")).unwrap();
    fs::write(setting.path("calibration.jsonl"), format!("{calibration}{first}\n")).unwrap();
    assert_eq!(Dataset::read_splits(&setting.plan(&[])).unwrap()[1].examples.len(), EXAMPLES + 1);
}

#[test]
fn several_files_make_a_split() {
    let setting = Setting::new();
    let (whole, text) =
        (ids(&read(&setting.plan(&[]))), fs::read_to_string(setting.path("test.jsonl")).unwrap());
    let lines: Vec<&str> = text.lines().collect();
    for (index, part) in lines.chunks(20).enumerate() {
        fs::write(setting.path(&format!("part-{index}.jsonl")), part.join("\n")).unwrap();
    }
    let mut plan = setting.plan(&[]);
    plan.test.paths = setting.path("part-*.jsonl").into();
    assert_eq!(ids(&read(&plan)), whole);
}

fn read(plan: &Plan) -> Dataset {
    Dataset::read_splits(plan).unwrap().into_iter().next().unwrap()
}

/// The best of several references counts, in every table and whatever its place among them.
#[test]
fn wrong_references_beside_a_right_one_change_nothing() {
    let (setting, several) = (Setting::new(), Setting::new());
    for split in ["test", "calibration"] {
        let file = several.path(&format!("{split}.jsonl"));
        let lines = fs::read_to_string(&file).unwrap();
        let lines = lines.lines().enumerate().map(|(index, line)| {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            let mut references = vec!["nothing of it".into(), "nor of it".into()];
            references.insert(index % 3, record["target"].take());
            record["target"] = references.into();
            format!("{record}\n")
        });
        fs::write(&file, lines.collect::<String>()).unwrap();
    }
    let [one, best] = [&setting, &several].map(|setting| setting.run("out", 1, &[]).results);
    for (one, best) in one.sweep.iter().zip(&best.sweep) {
        assert_eq!((one.rouge_l, one.token_f1, one.chrf), (best.rouge_l, best.token_f1, best.chrf));
        assert_eq!(one.risk_difference, best.risk_difference);
    }
    // The risk is token-F1. Of the columns only the last one depends on time.
    let calibration = |setting: &Setting| fs::read_to_string(setting.path("out/calibration.csv")).unwrap();
    let untimed = |table: String| -> Vec<Vec<String>> {
        let cells = |line: &str| line.split(',').take(13).map(str::to_owned).collect();
        table.lines().map(cells).collect()
    };
    assert_eq!(untimed(calibration(&setting)), untimed(calibration(&several)));
}

/// Files in which each example of both splits comes `copies` times, as a group.
fn write_groups(setting: &Setting, copies: usize) {
    for split in ["test", "calibration"] {
        let file = setting.path(&format!("{split}.jsonl"));
        let lines = fs::read_to_string(&file).unwrap();
        let copy = |copy: usize| {
            lines.lines().map(move |line| {
                let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
                record["group"] = record["id"].take();
                record["id"] = format!("{}-{copy}", record["group"].as_str().unwrap()).into();
                format!("{record}\n")
            })
        };
        fs::write(&file, (0..copies).flat_map(copy).collect::<String>()).unwrap();
    }
}

const BY_GROUP: &[&str] = &["data.group=group"];

/// Copies of an example are no further evidence: with their group all guarantees are those of one copy.
#[test]
fn copies_within_a_group_certify_nothing_more() {
    let (one, several) = (Setting::new(), Setting::new());
    write_groups(&several, 3);
    let plain = one.run("out", 2, &[]).results;
    let grouped = several.run("out", 2, BY_GROUP).results;
    for ((guarantee, plain), (_, grouped)) in plain.calibration.iter().zip(&grouped.calibration) {
        assert_eq!(plain.threshold, grouped.threshold, "{guarantee:?}");
        assert_eq!(plain.calibration_examples, grouped.calibration_examples);
        assert!((plain.test_loss - grouped.test_loss).abs() < 1e-12);
    }
    for ((_, plain), (_, grouped)) in plain.trials.iter().zip(&grouped.trials) {
        assert_eq!(
            (plain.threshold_mean, plain.test_examples, plain.pool_violations),
            (grouped.threshold_mean, grouped.test_examples, grouped.pool_violations)
        );
    }
    // Without it they seem to be three times as many, and all seems three times as sure.
    let deceived = several.run("deceived", 2, &[]).results;
    let p_values = |results: &Results| -> f64 {
        results.calibrations.iter().flat_map(|calibration| &calibration.p_values).sum()
    };
    assert!(p_values(&deceived) < p_values(&grouped));
}

#[test]
fn groups_are_taken_whole_and_are_in_one_split() {
    let setting = Setting::new();
    write_groups(&setting, 3);
    let groups = |dataset: &Dataset| dataset.groups.names().to_vec();
    for (limit, expected) in [(1, 3), (9, 9), (10, 12), (1000, 3 * EXAMPLES)] {
        let mut plan = setting.plan(&[BY_GROUP, &[&format!("data.test_examples={limit}")]].concat());
        assert_eq!(read(&plan).examples.len(), expected);
        plan.calibration.paths = plan.test.paths.clone();
        if limit < 1000 {
            let [test, calibration] = Dataset::read_splits(&plan).unwrap();
            assert_eq!(
                (test.examples.len(), calibration.examples.len()),
                (expected, 3 * EXAMPLES - expected)
            );
            assert!(groups(&test).iter().all(|group| !groups(&calibration).contains(group)));
        } else {
            let error = Dataset::read_splits(&plan).unwrap_err().to_string();
            assert!(error.contains("leaves none for calibration"), "{error}");
        }
    }
}
