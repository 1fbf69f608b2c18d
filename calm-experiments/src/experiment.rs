//! A whole run but for its figures: read, decode what is missing, compute, write.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use calm_checkpoint::{checkpoint_fingerprint, fingerprint, folder_of};
use calm_core::PolicySpec;
use calm_data::Example;
use calm_engine::engine::Engine;

use crate::answer::Answer;
use crate::certify::check_policy;
use crate::config::Plan;
use crate::dataset::{Dataset, Split};
use crate::fitted::check_not_fitted_to;
use crate::jobs::{OtherRuns, UnitCounts, Work};
use crate::outputs::SplitOutputs;
use crate::report::{self, Material, REPORT};
use crate::runner::{Decoding, common, decode_missing};
use crate::settings::{calibration_policies, certified_rows, sweep_policies, to_decode};
use crate::statistics::{Results, certified_policies, compute};
use crate::summary::{Summary, Times, write_csv};
use crate::trials::check_division;
use crate::unit::{Common, Header, Store, UnitKey, UnitState};

/// The file that is written last, so that a run which has it is finished.
const SUMMARY: &str = "summary.json";

/// What a run left behind.
#[derive(Debug)]
pub struct Report {
    /// All tables.
    pub results: Results,
    /// The files of tables and summary.
    pub files: Vec<PathBuf>,
    /// Why not all of them were written, if that is so: tables can be shown nevertheless.
    pub unwritten: Option<anyhow::Error>,
    /// Units found and decoded.
    pub units: UnitCounts,
    /// The examples that every setting was measured on.
    pub test: Dataset,
}

/// Runs a plan; everything goes below the folder `out`. `load_engine` is called once the data are known to be
/// there. What an unfinished run has left there is continued, or replaced if it is another run's;
/// `finished_run` says what becomes of a finished one.
///
/// # Errors
/// Data or model cannot be read, a setting does not fit the model, decoding fails, a unit cannot be written,
/// or `out` holds another finished run that is to be kept.
pub fn run(
    plan: &Plan,
    out: &Path,
    finished_run: OtherRuns,
    load_engine: impl FnOnce() -> anyhow::Result<Engine>,
) -> anyhow::Result<Report> {
    let clock = Clock::start();
    let mut prepared = Prepared::new(plan, out, finished_run, load_engine)?;
    let units = prepared.decode(None)?;
    let rows = prepared.decoded.rows(plan, &prepared.datasets)?;
    let Prepared { datasets, decoded, engine, .. } = prepared;
    drop(engine);
    finish(plan, out, datasets, &decoded, &rows, units, clock)
}

/// A run whose data and model are there and fit together.
pub struct Prepared<'p> {
    plan: &'p Plan,
    datasets: Datasets,
    pub(crate) engine: Engine,
    decoded: Decoded,
    other_runs: OtherRuns,
}

impl<'p> Prepared<'p> {
    /// Reads data and model, and checks that each setting fits them.
    ///
    /// # Errors
    /// Data or model cannot be read, or a setting does not fit the model.
    pub fn new(
        plan: &'p Plan,
        out: &Path,
        finished_run: OtherRuns,
        load_engine: impl FnOnce() -> anyhow::Result<Engine>,
    ) -> anyhow::Result<Self> {
        let datasets = Datasets::read(plan)?;
        let engine = load_engine()?;
        let num_layers = engine.model().shape().num_layers;
        for policy in sweep_policies(plan, num_layers) {
            policy
                .make(engine.model())
                .with_context(|| format!("the setting {policy} does not fit the model"))?;
        }
        for policy in calibration_policies(plan) {
            check_policy(policy, engine.model())?;
        }
        for dataset in [&datasets.test, &datasets.calibration] {
            check_not_fitted_to(&engine, &sweep_policies(plan, num_layers), dataset, plan.max_source_tokens)?;
        }
        let common = common(&engine, plan.max_tokens, plan.max_source_tokens, plan.batch_size);
        let decoded = Decoded { store: Store::new(out), common, num_layers };
        let other_runs = if out.join(SUMMARY).exists() { finished_run } else { OtherRuns::Overwrite };
        Ok(Self { plan, datasets, engine, decoded, other_runs })
    }

    /// The units that are known: all of them, but where the test split is decoded at certified thresholds
    /// alone, as long as these are not known, those of the calibration split.
    ///
    /// # Errors
    /// A finished unit cannot be read.
    pub fn units(&self) -> anyhow::Result<Vec<Unit>> {
        let mut units = Vec::new();
        for work in self.known_work()? {
            for (key, shard) in work.units(&self.decoded.common) {
                let examples = &work.dataset.examples[shard.range.clone()];
                let is_finished = self.decoded.store.state(&key, examples) == UnitState::Finished;
                units.push(Unit { id: key.id(), is_finished, key });
            }
        }
        Ok(units)
    }

    /// Decodes what has no file yet; of that only the units with these ids, if there are any.
    ///
    /// # Errors
    /// As [`decode_missing`] has them, or there is no such unit.
    pub fn decode(&mut self, only: Option<&BTreeSet<String>>) -> anyhow::Result<UnitCounts> {
        if let Some(only) = only {
            let known: BTreeSet<String> = self.known_work()?.iter().flat_map(|work| self.ids(work)).collect();
            if let Some(id) = only.difference(&known).next() {
                bail!("the run has no unit {id}, or none as long as no thresholds are certified");
            }
        }
        let Self { plan, datasets, engine, decoded, other_runs } = self;
        let mut decode = |work: &[Work<'_>]| {
            let Decoded { common, store, .. } = &*decoded;
            decode_missing(engine, &Decoding { common, work, store, other_runs: *other_runs, only })
        };
        if !plan.raw.sweep.certified_only {
            let rows = sweep_policies(plan, decoded.num_layers);
            return decode(&[decoded.test(datasets, &rows), decoded.calibration(datasets, plan)]);
        }
        let calibrated = decode(&[decoded.calibration(datasets, plan)])?;
        if only.is_some() && !decoded.is_calibrated(plan, datasets) {
            return Ok(calibrated);
        }
        let rows = decoded.rows(plan, datasets)?;
        Ok(calibrated + decode(&[decoded.test(datasets, &rows)])?)
    }

    /// What the units have in common.
    pub(crate) fn common(&self) -> &Common {
        &self.decoded.common
    }

    /// The examples of a unit.
    pub(crate) fn examples(&self, key: &UnitKey) -> &[Example] {
        let dataset = match key.split {
            Split::Test => &self.datasets.test,
            Split::Calibration => &self.datasets.calibration,
        };
        &dataset.examples[dataset.shards[key.shard].range.clone()]
    }

    fn ids(&self, work: &Work<'_>) -> Vec<String> {
        work.units(&self.decoded.common).map(|(key, _)| key.id()).collect()
    }

    fn known_work(&self) -> anyhow::Result<Vec<Work<'_>>> {
        let Self { plan, datasets, decoded, .. } = self;
        let calibration = decoded.calibration(datasets, plan);
        if plan.raw.sweep.certified_only && !decoded.is_calibrated(plan, datasets) {
            return Ok(vec![calibration]);
        }
        Ok(vec![decoded.test(datasets, &decoded.rows(plan, datasets)?), calibration])
    }
}

/// A unit of a run.
pub struct Unit {
    /// The name of the unit, such as `test/calm-softmax-0.9/0003`.
    pub id: String,
    /// Whether the unit has a file.
    pub is_finished: bool,
    /// What the unit consists of.
    pub key: UnitKey,
}

/// Makes the tables again from the files of an earlier run, without a model.
///
/// # Errors
/// Data cannot be read, or a unit is missing or was made with something else than the plan says, such as
/// another model.
pub fn run_statistics(plan: &Plan, out: &Path) -> anyhow::Result<Report> {
    let clock = Clock::start();
    let Opened { datasets, decoded, rows } = Opened::new(plan, out)?;
    finish(plan, out, datasets, &decoded, &rows, UnitCounts::default(), clock)
}

/// What an earlier run has decoded.
pub(crate) struct Opened {
    datasets: Datasets,
    decoded: Decoded,
    rows: Vec<PolicySpec>,
}

impl Opened {
    /// Finds the files of a run in its folder.
    ///
    /// # Errors
    /// As [`run_statistics`] has them.
    pub(crate) fn new(plan: &Plan, out: &Path) -> anyhow::Result<Self> {
        let datasets = Datasets::read(plan)?;
        let store = Store::new(out);
        let header = store.any_header()?;
        check_model(&plan.model, &header)?;
        let common = Common {
            max_tokens: plan.max_tokens,
            max_source_tokens: plan.max_source_tokens,
            batch_size: plan.batch_size,
            ..header.unit.common
        };
        let num_layers = header.shape.num_layers;
        let decoded = Decoded { store, common, num_layers };
        let rows = decoded.rows(plan, &datasets)?;
        Ok(Self { datasets, decoded, rows })
    }

    /// The outputs of every row of the sweep.
    ///
    /// # Errors
    /// A unit is missing, damaged or of another run.
    pub(crate) fn test(&self) -> anyhow::Result<SplitOutputs<'_>> {
        self.decoded.read(&self.datasets.test, &self.rows)
    }

    /// The examples that thresholds are certified with.
    pub(crate) fn calibration_examples(&self) -> &Dataset {
        &self.datasets.calibration
    }

    /// The files of units, and what these have in common.
    pub(crate) fn units(&self) -> (&Store, &Common) {
        (&self.decoded.store, &self.decoded.common)
    }
}

/// Refuses files that another checkpoint has decoded. One that is not there any more is known by its name
/// alone.
fn check_model(model: &Path, header: &Header) -> anyhow::Result<()> {
    let decoded_by = header.unit.common.model.as_str();
    let name = header.folder.as_ref().map_or("another model".into(), |folder| folder.display().to_string());
    if model.is_file() || model.join("config.json").exists() {
        let found = fingerprint(model)?;
        ensure!(
            checkpoint_fingerprint(decoded_by) == found,
            "the files were not decoded by {} as it is now (fingerprint {found:.12}): that was {name} ({:.12})",
            model.display(),
            checkpoint_fingerprint(decoded_by)
        );
    } else if header.folder.as_ref().is_some_and(|folder| *folder != folder_of(model)) {
        bail!(
            "the files were decoded by {name}, and {} is not there to tell if it is the same",
            model.display()
        );
    }
    Ok(())
}

struct Datasets {
    test: Dataset,
    calibration: Dataset,
}

impl Datasets {
    fn read(plan: &Plan) -> anyhow::Result<Self> {
        let [test, calibration] = Dataset::read_splits(plan)?;
        // Too few examples are found before anything is decoded.
        check_division(plan, calibration.groups.len())?;
        Ok(Self { test, calibration })
    }
}

/// The files of a run and what they have in common.
struct Decoded {
    store: Store,
    common: Common,
    num_layers: usize,
}

impl Decoded {
    fn test<'d>(&self, datasets: &'d Datasets, rows: &[PolicySpec]) -> Work<'d> {
        Work { dataset: &datasets.test, policies: to_decode(rows, self.num_layers) }
    }

    fn calibration<'d>(&self, datasets: &'d Datasets, plan: &Plan) -> Work<'d> {
        let policies = to_decode(&calibration_policies(plan), self.num_layers);
        Work { dataset: &datasets.calibration, policies }
    }

    /// Whether the whole calibration split is decoded.
    fn is_calibrated(&self, plan: &Plan, datasets: &Datasets) -> bool {
        let calibration = self.calibration(datasets, plan);
        let mut units = calibration.units(&self.common);
        units.all(|(key, shard)| {
            self.store.state(&key, &datasets.calibration.examples[shard.range.clone()]) == UnitState::Finished
        })
    }

    fn read<'d>(&self, dataset: &'d Dataset, policies: &[PolicySpec]) -> anyhow::Result<SplitOutputs<'d>> {
        let policies = to_decode(policies, self.num_layers);
        SplitOutputs::read(&self.store, &self.common, dataset, &policies, self.num_layers)
    }

    /// The rows of the sweep, for which the calibration split has to be decoded if they depend on what is
    /// certified.
    fn rows(&self, plan: &Plan, datasets: &Datasets) -> anyhow::Result<Vec<PolicySpec>> {
        if !plan.raw.sweep.certified_only {
            return Ok(sweep_policies(plan, self.num_layers));
        }
        let calibration = self.read(&datasets.calibration, &calibration_policies(plan))?;
        Ok(certified_rows(plan, self.num_layers, &certified_policies(plan, &calibration)?))
    }
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
    datasets: Datasets,
    decoded: &Decoded,
    rows: &[PolicySpec],
    units: UnitCounts,
    clock: Clock,
) -> anyhow::Result<Report> {
    let decoding_seconds = clock.started.elapsed().as_secs_f64();
    let test = decoded.read(&datasets.test, rows)?;
    let calibration = decoded.read(&datasets.calibration, &calibration_policies(plan))?;
    let results = compute(plan, rows, &test, &calibration)?;

    let files = [REPORT, "results.md", "sweep.csv", "calibration.csv", "trials.csv", SUMMARY]
        .map(|name| out.join(name));
    let [page, answer, sweep, calibration, trials, summary_file] = &files;
    let write = || {
        write_csv(sweep, &results.sweep)?;
        write_csv(calibration, &results.calibration)?;
        write_csv(trials, &results.trials)?;
        let times = Times {
            started_unix: clock.started_unix,
            decoding_seconds,
            total_seconds: clock.started.elapsed().as_secs_f64(),
        };
        let summary = Summary::new(plan, &decoded.common, &results, units, times);
        let Decoded { store, common, .. } = decoded;
        let material = Material { plan, results: &results, test: &test, store, common, summary: &summary };
        report::write(&material, page)?;
        calm_files::write_changed(answer, Answer::new(plan, &results).markdown(&plan.name))?;
        summary.write(summary_file)
    };
    let unwritten = write().err();
    Ok(Report { results, files: files.to_vec(), unwritten, units, test: datasets.test })
}
