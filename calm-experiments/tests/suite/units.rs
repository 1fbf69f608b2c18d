//! Files of units that are damaged, forged, of another version or of another run, and files that stay.

use std::fs;
use std::path::{Path, PathBuf};

use calm_experiments::dataset::Dataset;
use calm_experiments::experiment::{run, run_statistics};
use calm_experiments::jobs::OtherRuns;
use calm_experiments::unit::{Store, UnitKey, UnitState};
use calm_files::hex;
use sha2::{Digest, Sha256};

use crate::made_up::engine;
use crate::runs::Setting;

const HASH_KEY: &str = "{\"sha256\":\"";

/// Changes what a file says, hash included.
pub(crate) fn forge(path: &Path, edit: impl FnOnce(&str) -> String) {
    let text = fs::read_to_string(path).unwrap();
    let edited = edit(&text[HASH_KEY.len() + 64..]);
    fs::write(path, format!("{HASH_KEY}{}{edited}", hex(&Sha256::digest(&edited)))).unwrap();
}

/// The first unit of the full model on the test split.
struct First {
    setting: Setting,
    store: Store,
    key: UnitKey,
    file: PathBuf,
}

impl First {
    fn new() -> Self {
        let setting = Setting::new();
        setting.run("out", 1, &[]);
        let store = Store::new(&setting.path("out"));
        let key = store.any_header().unwrap().unit;
        let file = store.path(&key);
        Self { setting, store, key, file }
    }

    fn state(&self) -> UnitState {
        let [test, _] = Dataset::read_splits(&self.setting.plan(&[])).unwrap();
        self.store.state(&self.key, &test.examples[test.shards[0].range.clone()])
    }
}

#[test]
fn a_changed_bit_is_noticed_wherever_it_is() {
    let first = First::new();
    let bytes = fs::read(&first.file).unwrap();
    assert_eq!(first.state(), UnitState::Finished);
    for place in (0..bytes.len()).step_by(bytes.len() / 300) {
        let mut changed = bytes.clone();
        changed[place] ^= 1 << (place % 8);
        fs::write(&first.file, changed).unwrap();
        assert_ne!(first.state(), UnitState::Finished, "byte {place}");
    }
    for length in [0, 1, 70, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&first.file, &bytes[..length]).unwrap();
        assert!(matches!(first.state(), UnitState::Damaged(_)), "{length} bytes");
    }
}

/// Contents that cannot be, each decoded again and then as they were, even under a right hash.
#[test]
fn impossible_contents_are_decoded_again() {
    let first = First::new();
    let tables = first.setting.tables("out");
    let check = |from: &str, to: &str, expected: &str| {
        forge(&first.file, |text| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        match first.state() {
            UnitState::Damaged(reason) => {
                assert!(reason.contains(expected), "{reason}\ninstead of {expected}")
            }
            state => panic!("{state:?} instead of {expected}"),
        }
        assert!(run_statistics(&first.setting.plan(&[]), &first.setting.path("out")).is_err());
        assert_eq!(first.setting.run("out", 1, &[]).units.decoded, 1);
        assert_eq!(first.setting.tables("out"), tables);
    };
    check("\"exit_layers\":[4,", "\"exit_layers\":[99,", "shard-0000.jsonl:2: exit layer 99 of 4");
    check("\"exit_layers\":[4,", "\"exit_layers\":[0,", "exit layer 0 of 4");
    check("\"exit_layers\":[4,", "\"exit_layers\":[4,4,", "exit layers and");
    check("\"confidence\":[", "\"confidence\":[null,", "confidences");
    check("\"executed_layers\":", "\"executed_layers\":9223372036854775", "layers executed, of at most 48");
    check("\"propagated\":", "\"propagated\":922337203685477580", "layers propagated, of at most 48");
    check("\"encoder_seconds\":", "\"encoder_seconds\":-1", "seconds");
    check("\"ends\":[", "\"ends\":[0,", "end somewhere");
    check("\"example\":\"test-", "\"example\":\"other-test-", "the example other-test-");
    check("\"examples\":10,", "\"examples\":10000000000,", "10 examples instead of 10000000000");
    check("\"num_layers\":4", "\"num_layers\":0", "a decoder without layers");
}

#[test]
fn files_of_an_earlier_version_are_decoded_again_unless_they_are_another_finished_runs() {
    let first = First::new();
    let tables = first.setting.tables("out");
    let text = fs::read_to_string(&first.file).unwrap();
    // The format 2 had no hash.
    let earlier =
        "{".to_owned() + &text[HASH_KEY.len() + 64 + 2..].replacen("\"format\":3", "\"format\":2", 1);
    let resume = || {
        let load = || Ok(engine(1, usize::MAX));
        run(&first.setting.plan(&[]), &first.setting.path("out"), OtherRuns::Keep, load)
    };
    fs::write(&first.file, &earlier).unwrap();
    assert_eq!(first.state(), UnitState::OfAnotherVersion("an earlier"));
    assert_eq!(resume().unwrap().units.decoded, 1);
    assert_eq!(first.setting.tables("out"), tables);

    fs::write(&first.file, earlier.replace("made up", "another model")).unwrap();
    assert_eq!(first.state(), UnitState::OfAnotherRun("model"));
    let error = resume().unwrap_err().to_string();
    assert!(error.contains("is of a finished run with another model: choose another folder"), "{error}");
}

#[test]
fn a_finished_run_is_replaced_only_on_demand() {
    let setting = Setting::new();
    setting.run("out", 1, &[]);
    let content = || setting.units("out").iter().map(|unit| fs::read(unit).unwrap()).collect::<Vec<_>>();
    let (tables, units) = (setting.tables("out"), content());
    let run = |overrides: &[&str], finished_run| {
        run(&setting.plan(overrides), &setting.path("out"), finished_run, || Ok(engine(1, usize::MAX)))
    };
    for (change, expected) in [
        ("decode.max_tokens=9", "another maximal length"),
        ("decode.max_source_tokens=9", "another maximal length"),
        ("decode.batch_size=5", "another batch size"),
        ("data.columns.prefix='w5 '", "another data"),
    ] {
        let error = run(&[change], OtherRuns::Keep).unwrap_err().to_string();
        assert!(error.contains(expected) && error.ends_with("replace that run with --overwrite"), "{error}");
        assert!(setting.tables("out") == tables && content() == units, "{change}");
    }
    // More of the same is no other run.
    assert!(run(&["sweep.thresholds=[0.9, 0.2]"], OtherRuns::Keep).is_ok());
    // What is not finished is nobody's result.
    fs::remove_file(setting.path("out/summary.json")).unwrap();
    assert!(run(&["decode.max_tokens=9"], OtherRuns::Keep).unwrap().units.decoded > 0);
    assert!(run(&[], OtherRuns::Keep).is_err());
    run(&[], OtherRuns::Overwrite).unwrap();
    assert_eq!(setting.tables("out"), tables);
}

/// A finished run may lie where nothing can be written.
#[test]
fn tables_are_shown_of_a_run_that_cannot_be_written_to() {
    let setting = Setting::new();
    setting.run("out", 1, &[]);
    let files = ["sweep.csv", "calibration.csv", "trials.csv", "summary.json"].map(|name| {
        let path = setting.path("out").join(name);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        (path, modified)
    });
    let plan = setting.plan(&[]);
    let report = run_statistics(&plan, &setting.path("out")).unwrap();
    assert!(report.unwritten.is_none());
    for (path, modified) in files {
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), modified, "{}", path.display());
    }
    let in_the_way = setting.path("out/calibration.csv");
    fs::remove_file(&in_the_way).unwrap();
    fs::create_dir(&in_the_way).unwrap();
    let report = run_statistics(&plan, &setting.path("out")).unwrap();
    assert!(!report.results.sweep.is_empty());
    assert!(report.unwritten.unwrap().to_string().contains("calibration.csv"));
}
