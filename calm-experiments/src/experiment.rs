//! A whole run but for its figures: read, decode what is missing, compute, write.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use calm_calibrate::TrialSplit;
use calm_core::PolicySpec;
use calm_engine::engine::Engine;

use crate::config::Plan;
use crate::dataset::Dataset;
use crate::fitted::check_not_fitted_to;
use crate::outputs::SplitOutputs;
use crate::runner::{UnitCounts, Work, common, decode_missing};
use crate::settings::{calibration_policies, sweep_policies, to_decode};
use crate::statistics::{Results, compute};
use crate::summary::{Summary, Times, write_csv};
use crate::trials::divide;
use crate::unit::{Common, Store};

/// What a run left behind.
#[derive(Debug)]
pub struct Report {
    /// All tables.
    pub results: Results,
    /// The files written.
    pub files: Vec<PathBuf>,
    /// Units found and decoded.
    pub units: UnitCounts,
}

/// Runs a plan; everything goes below the folder `out`. `load_engine` is called once the data are known to be
/// there.
///
/// # Errors
/// Data or model cannot be read, a setting does not fit the model, decoding fails, a file cannot be written.
pub fn run(
    plan: &Plan,
    out: &Path,
    load_engine: impl FnOnce() -> anyhow::Result<Engine>,
) -> anyhow::Result<Report> {
    let clock = Clock::start();
    let datasets = Datasets::read(plan)?;
    let engine = load_engine()?;
    let num_layers = engine.model().shape().num_layers;
    for policy in sweep_policies(plan, num_layers) {
        policy
            .make(engine.model())
            .with_context(|| format!("the setting {policy} does not fit the model"))?;
    }
    for dataset in [&datasets.test, &datasets.calibration] {
        check_not_fitted_to(&engine, &sweep_policies(plan, num_layers), dataset, plan.max_source_tokens)?;
    }
    let common = common(&engine, plan.max_tokens, plan.max_source_tokens, plan.batch_size);
    let store = Store::new(out);
    let work = [
        Work { dataset: &datasets.test, policies: to_decode(&sweep_policies(plan, num_layers), num_layers) },
        Work { dataset: &datasets.calibration, policies: to_decode(&calibration_policies(plan), num_layers) },
    ];
    let units = decode_missing(engine, &common, &work, &store)?;
    finish(plan, out, &datasets, &Decoded { store, common, num_layers, units }, clock)
}

/// Makes the tables again from the files of an earlier run, without a model.
///
/// # Errors
/// Data cannot be read, a unit is missing or was made with something else than the plan says, a file cannot
/// be written.
pub fn run_statistics(plan: &Plan, out: &Path) -> anyhow::Result<Report> {
    let clock = Clock::start();
    let datasets = Datasets::read(plan)?;
    let store = Store::new(out);
    let header = store.any_header()?;
    let common = Common {
        max_tokens: plan.max_tokens,
        max_source_tokens: plan.max_source_tokens,
        batch_size: plan.batch_size,
        ..header.unit.common
    };
    let num_layers = header.shape.num_layers;
    finish(plan, out, &datasets, &Decoded { store, common, num_layers, units: UnitCounts::default() }, clock)
}

struct Datasets {
    test: Dataset,
    calibration: Dataset,
    /// Made here, so that too few examples are found before anything is decoded.
    trial_splits: Vec<TrialSplit>,
}

impl Datasets {
    fn read(plan: &Plan) -> anyhow::Result<Self> {
        let [test, calibration] = Dataset::read_splits(plan)?;
        let trial_splits = divide(plan, calibration.examples.len())?;
        Ok(Self { test, calibration, trial_splits })
    }
}

/// The files of a run and what they have in common.
struct Decoded {
    store: Store,
    common: Common,
    num_layers: usize,
    units: UnitCounts,
}

struct Clock {
    started_unix: u64,
    started: Instant,
}

impl Clock {
    fn start() -> Self {
        let started_unix =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        Self { started_unix, started: Instant::now() }
    }
}

fn finish(
    plan: &Plan,
    out: &Path,
    datasets: &Datasets,
    decoded: &Decoded,
    clock: Clock,
) -> anyhow::Result<Report> {
    let decoding_seconds = clock.started.elapsed().as_secs_f64();
    let Decoded { store, common, num_layers, units } = decoded;
    let rows: Vec<PolicySpec> = sweep_policies(plan, *num_layers);
    let read = |dataset, policies: &[PolicySpec]| {
        SplitOutputs::read(store, common, dataset, &to_decode(policies, *num_layers), *num_layers)
    };
    let test = read(&datasets.test, &rows)?;
    let calibration = read(&datasets.calibration, &calibration_policies(plan))?;
    let results = compute(plan, &rows, &test, &calibration, &datasets.trial_splits)?;

    let file = |name: &str| out.join(name);
    write_csv(&file("sweep.csv"), &results.sweep)?;
    write_csv(&file("calibration.csv"), &results.calibration)?;
    write_csv(&file("trials.csv"), &results.trials)?;
    let files = ["sweep.csv", "calibration.csv", "trials.csv", "summary.json"].map(file).to_vec();
    let times = Times {
        started_unix: clock.started_unix,
        decoding_seconds,
        total_seconds: clock.started.elapsed().as_secs_f64(),
    };
    calm_files::write_json(&file("summary.json"), &Summary::new(plan, common, &results, *units, times))?;
    Ok(Report { results, files, units: *units })
}
