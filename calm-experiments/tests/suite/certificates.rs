//! Certificates: what they say, and that nobody believes one that is not as it was written.

use std::fs;
use std::path::{Path, PathBuf};

use calm_calibrate::{CalibrationOptions, LossKind, PValue, Tolerance};
use calm_data::Columns;
use calm_experiments::certify::{Certificate, CertifyPlan, certify, lost_by_writing};
use calm_experiments::config::{DatasetPlan, Objective, ObjectiveKind, Series};
use calm_files::hex;
use calm_metrics::Loss;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::made_up::{NUM_LAYERS, engine};
use crate::runs::{EXAMPLES, Setting};

fn plan(setting: &Setting) -> CertifyPlan {
    let delta = Tolerance::new(0.6).unwrap();
    let thresholds = [0.9, 0.7, 0.5, 0.3];
    CertifyPlan {
        data: DatasetPlan {
            paths: setting.path("calibration.jsonl").into(),
            limit: None,
            columns: Columns { prefix: "w5 ".to_owned(), ..Columns::default() },
        },
        seed: 0,
        series: Series::new("calm-softmax-*", &thresholds).unwrap(),
        objective: Objective {
            kind: ObjectiveKind::Textual,
            loss: Loss::Chrf,
            loss_kind: LossKind::UnitInterval,
            p_value: PValue::Betting,
            deltas: vec![delta],
        },
        options: CalibrationOptions::new(delta, LossKind::UnitInterval),
        max_tokens: 12,
        max_source_tokens: None,
        batch_size: 4,
        shard_size: 10,
    }
}

/// A certificate and the file that it was written to.
fn certificate(setting: &Setting) -> (Certificate, PathBuf) {
    let (plan, path) = (plan(setting), setting.path("calibration.json"));
    let certificate = certify(&plan, &setting.path("work"), || Ok(engine(1, usize::MAX))).unwrap();
    assert!(!certificate.calibration.fallback);
    certificate.write(&path).unwrap();
    (certificate, path)
}

fn keys(path: &Path) -> Map<String, Value> {
    calm_files::read_json(path).unwrap()
}

/// Writes keys under a hash that fits them.
fn write(path: &Path, mut keys: Map<String, Value>) {
    keys.remove("sha256");
    let hash = hex(&Sha256::digest(serde_json::to_string(&keys).unwrap()));
    keys.insert("sha256".to_owned(), hash.into());
    calm_files::write_json(path, &keys).unwrap();
}

fn complaint(path: &Path) -> String {
    format!("{:#}", Certificate::read(path).unwrap_err())
}

#[test]
fn what_was_written_is_read() {
    let setting = Setting::new();
    let (certificate, path) = certificate(&setting);
    assert_eq!(Certificate::read(&path).unwrap(), certificate);
    assert_eq!(
        certificate.applied().unwrap(),
        format!(
            "calm-softmax-{}, calibrated on {EXAMPLES} examples for the textual objective (chrf) with delta 0.6 and epsilon \
             0.05; outputs of at most 12 tokens, \"w5 \" in front of sources that do not begin with it",
            certificate.calibration.threshold
        )
    );
    // In another layout, or another order of the keys, it says the same.
    let keys: Map<String, Value> = keys(&path).into_iter().rev().collect();
    fs::write(&path, serde_json::to_string(&keys).unwrap()).unwrap();
    assert_eq!(Certificate::read(&path).unwrap(), certificate);
}

/// Each number, word and flag of the file, changed by itself.
#[test]
fn a_changed_value_is_refused() {
    let setting = Setting::new();
    let (_, path) = certificate(&setting);
    let original = keys(&path);
    let pointers = leaves("", &Value::Object(original.clone()));
    assert!(pointers.len() > 30, "{pointers:?}");
    for pointer in pointers {
        let mut changed = Value::Object(original.clone());
        let value = changed.pointer_mut(&pointer).unwrap();
        *value = match &*value {
            Value::Number(number) => (number.as_f64().unwrap() + 0.125).into(),
            Value::String(text) => format!("{text}.").into(),
            Value::Bool(flag) => (!flag).into(),
            _ => 1.into(),
        };
        calm_files::write_json(&path, &changed).unwrap();
        let found = complaint(&path);
        assert!(
            found.contains("calibration.json is not as it was written, so that nothing is guaranteed"),
            "{found}"
        );
    }
    let text = serde_json::to_string_pretty(&original).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(complaint(&path).contains("is not a calibration of a model"), "{}", complaint(&path));
}

fn leaves(pointer: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Object(keys) => {
            keys.iter().flat_map(|(key, value)| leaves(&format!("{pointer}/{key}"), value)).collect()
        }
        Value::Array(items) => {
            let item = |(index, value)| leaves(&format!("{pointer}/{index}"), value);
            items.iter().enumerate().flat_map(item).collect()
        }
        _ => vec![pointer.to_owned()],
    }
}

/// Values that cannot be those of one calibration, even under a right hash.
#[test]
fn contradictions_are_refused() {
    let setting = Setting::new();
    let (certificate, path) = certificate(&setting);
    let original = keys(&path);
    let check = |key: &str, value: Value, expected: &str| {
        let mut changed = original.clone();
        changed.insert(key.to_owned(), value);
        write(&path, changed);
        assert!(complaint(&path).contains(expected), "{}\ninstead of {expected}", complaint(&path));
    };
    check(
        "threshold",
        0.01.into(),
        "the threshold is 0.01 (fallback: false), but the least certified one is",
    );
    check("certified", Value::Array(vec![]), "[] are said to be certified");
    check("fallback", true.into(), "fallback: true");
    check("examples", 0.into(), "there are no examples");
    check("num_layers", 0.into(), "of 0 layers on average");
    check("num_layers", 1.into(), "of 1 layer on average");
    check("average_layers", 99.5.into(), "99.5 of 4 layers on average");
    check(
        "policy",
        "calm-softmax-*-exits9".into(),
        "exits must be below the last of the decoder's 4 layers, but one is 9",
    );
    // The last layer is one that heads of a part of the vocabulary are tested after.
    let mut of_last_layer = original.clone();
    of_last_layer.insert("policy".to_owned(), "calm-head_confidence-*-exits3.4".into());
    write(&path, of_last_layer);
    Certificate::read(&path).unwrap();
    check("max_tokens", 0.into(), "outputs of at most 0 tokens");
    check("max_source_tokens", 0.into(), "sources of at most 0 tokens");
    let policy = |id: &str, expected: &str| check("policy", id.into(), expected);
    policy("calm-softmax-*-tauinf", "decay must be a finite number not below 0, not inf");
    policy("calm-softmax-0.5", "`calm-softmax-0.5` is no policy with a * for its threshold");
    policy("calm-softmaxes-*", "unknown confidence measure `softmaxes`");
    check("delta", 0.into(), "delta");

    let model = |fingerprint: &str, layers: usize| {
        certificate.check_model(fingerprint, layers).map_err(|e| e.to_string())
    };
    assert_eq!(model("made up", NUM_LAYERS), Ok(()));
    let found = model("made up", 5).unwrap_err();
    assert_eq!(found, "the calibration is of 4 decoder layers, but the model has 5");
    assert!(
        model("other", NUM_LAYERS).unwrap_err().starts_with("the calibration was made with another model")
    );
    assert!(
        model("bf16-made up", NUM_LAYERS)
            .unwrap_err()
            .starts_with("the calibration was made with other arithmetic")
    );
}

#[test]
fn one_of_an_earlier_version_is_refused_with_the_command_that_makes_it_anew() {
    let setting = Setting::new();
    let (_, path) = certificate(&setting);
    let mut earlier = keys(&path);
    earlier.remove("sha256");
    earlier.remove("columns");
    // Earlier versions knew no other policy than calm.
    earlier.remove("policy");
    earlier.insert("measure".to_owned(), "softmax".into());
    calm_files::write_json(&path, &earlier).unwrap();
    let found = complaint(&path);
    assert!(found.contains("is of an earlier version, and has no hash"), "{found}");
    let command = format!(
        "`calm calibrate --model DIR --data {} --measure softmax --thresholds 0.9,0.7,0.5,0.3 --objective textual --metric \
         chrf --delta 0.6 --epsilon 0.05 --p-value betting --procedure fixed-sequence --max-tokens 12 --output {} --overwrite`",
        setting.path("calibration.jsonl").display(),
        path.display()
    );
    assert!(found.ends_with(&command), "{found}\n{command}");
    write(&path, earlier);
    let found = complaint(&path);
    assert!(found.contains("is of an earlier version, and does not name its policy"), "{found}");
    assert!(found.ends_with(&command), "{found}\n{command}");

    let (_, path) = certificate(&setting);
    let mut unhashed = keys(&path);
    unhashed.remove("sha256");
    calm_files::write_json(&path, &unhashed).unwrap();
    assert!(complaint(&path).contains(" --policy 'calm-softmax-*' --thresholds "), "{}", complaint(&path));
}

#[test]
fn what_writing_would_lose_is_known_before_anything_is_decoded() {
    let setting = Setting::new();
    let (_, path) = certificate(&setting);
    let lost = |edit: fn(&mut CertifyPlan), fingerprint: &str| {
        let mut plan = plan(&setting);
        edit(&mut plan);
        lost_by_writing(&path, &plan, fingerprint)
    };
    let same = "made up";
    assert_eq!(lost(|_| {}, same), None);
    assert_eq!(lost(|plan| plan.series = Series::new("calm-softmax-*", &[0.9, 0.7]).unwrap(), same), None);
    assert_eq!(lost(|plan| plan.data.limit = Some(9), same), None);
    assert_eq!(lost(|_| {}, "bf16-made up"), Some("the calibration of another model or type of weights"));
    assert_eq!(lost(|plan| plan.max_tokens = 9, same), Some("a calibration with other maximal lengths"));
    assert_eq!(
        lost(|plan| plan.max_source_tokens = Some(9), same),
        Some("a calibration with other maximal lengths")
    );
    assert_eq!(
        lost(|plan| plan.data.paths = PathBuf::from("b.jsonl").into(), same),
        Some("a calibration on other data")
    );
    let other = Some("a calibration with another prefix or other columns");
    assert_eq!(lost(|plan| plan.data.columns.prefix.clear(), same), other);
    fs::write(&path, "").unwrap();
    assert_eq!(lost(|_| {}, same), None);
    fs::write(&path, "notes").unwrap();
    assert_eq!(lost(|_| {}, same), Some("something else than a calibration"));
    fs::remove_file(&path).unwrap();
    assert_eq!(lost(|_| {}, same), None);
}
