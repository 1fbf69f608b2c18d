//! Several tasks with the same settings, and one table of what each method takes and gives at the same
//! tolerance.
//!
//! A configuration with `[[tasks]]` is a comparison: each task is an experiment of its own, with what its
//! table says on top of the rest of the file. Results of a task go to a folder of its name; the table is
//! made of theirs and of speeds that are measured afterwards, policy by policy in turns.

mod figure;
mod speed;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use calm_calibrate::Tolerance;
use calm_engine::limits::{AT_LEAST_ONE, REPETITIONS};
use calm_files::{Document, Error};
use calm_plots::save;

use self::figure::ComparisonFigure;
use self::speed::Speeds;
use self::table::{ComparisonRow, rows_of_task, write_rows};
use crate::config::{ObjectiveKind, Plan, RawCompare};
pub use crate::tasks::{LoadEngine, RunOptions};
use crate::tasks::{Task, run_task, tasks_of};

/// A checked comparison.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Name of the run.
    pub name: String,
    /// What is compared, and how fast it is.
    pub compare: ComparePlan,
    /// An experiment for each task, by its name.
    pub tasks: Vec<(String, Plan)>,
}

/// The tolerance that methods are compared at, and what their speed is measured with.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparePlan {
    /// The kind of guarantee.
    pub objective: ObjectiveKind,
    /// The tolerance, one of the experiments'.
    pub delta: Tolerance,
    /// Engines with their types of weights; empty for that of the run alone.
    pub engines: Vec<speed::EngineChoice>,
    /// Rows decoded together.
    pub batch_sizes: Vec<usize>,
    /// Test examples of each task that are decoded.
    pub examples: usize,
    /// How often each policy is measured, the fastest of which counts.
    pub rounds: usize,
}

impl Comparison {
    /// Reads a configuration with tasks; `None` if it has none, and so is a single experiment.
    ///
    /// # Errors
    /// [`Error`], for the first thing that is wrong.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Option<Self>, Error> {
        Self::new(&Document::read(path, overrides)?)
    }

    /// As [`load`](Self::load), for a text that is already read; `path` is only named in errors.
    ///
    /// # Errors
    /// [`Error::Document`]
    pub fn parse(path: &Path, text: String, overrides: &[String]) -> Result<Option<Self>, Error> {
        Self::new(&Document::new(path, text, overrides)?)
    }

    fn new(document: &Document) -> Result<Option<Self>, Error> {
        let (mut tasks, mut compare) = (Vec::new(), None);
        for Task { name, plan, document } in tasks_of(document)? {
            let of_task = ComparePlan::new(plan.raw.compare.as_ref(), &plan, &document)?;
            if compare.as_ref().is_some_and(|compare| *compare != of_task) {
                return Err(document.invalid("compare", "must be the same for all tasks"));
            }
            compare = Some(of_task);
            tasks.push((name, plan));
        }
        let Some((_, first)) = tasks.first() else { return Ok(None) };
        let name = first.name.clone();
        Ok(compare.map(|compare| Self { name, compare, tasks }))
    }
}

impl ComparePlan {
    fn new(raw: Option<&RawCompare>, plan: &Plan, document: &Document) -> Result<Self, Error> {
        let Some(raw) = raw else {
            return Err(document.invalid("", "a configuration with tasks needs a section [compare]"));
        };
        let delta = Tolerance::new(raw.delta).map_err(|error| document.invalid("compare.delta", error))?;
        let is_certified = plan
            .objectives
            .iter()
            .any(|objective| objective.kind == raw.objective && objective.deltas.contains(&delta));
        if !is_certified {
            let message = format!("{delta} is none of the {} deltas of [calibration]", raw.objective);
            return Err(document.invalid("compare.delta", message));
        }
        for (index, &rows) in raw.batch_sizes.iter().enumerate() {
            AT_LEAST_ONE
                .check(rows)
                .map_err(|wrong| document.invalid(&format!("compare.batch_sizes[{index}]"), wrong))?;
        }
        AT_LEAST_ONE.check(raw.examples).map_err(|wrong| document.invalid("compare.examples", wrong))?;
        REPETITIONS.check(raw.rounds).map_err(|wrong| document.invalid("compare.rounds", wrong))?;
        let mut engines = Vec::new();
        for (index, name) in raw.engines.iter().enumerate() {
            let choice = name
                .parse()
                .map_err(|error: String| document.invalid(&format!("compare.engines[{index}]"), error))?;
            engines.push(choice);
        }
        Ok(Self {
            objective: raw.objective,
            delta,
            engines,
            batch_sizes: raw.batch_sizes.clone(),
            examples: raw.examples,
            rounds: raw.rounds,
        })
    }
}

/// What a comparison left behind.
#[derive(Debug)]
pub struct ComparisonReport {
    /// The table as text.
    pub table: String,
    /// All files of table and figures.
    pub files: Vec<PathBuf>,
}

/// Runs all tasks below the folder `out`, measures speeds, and writes `compare.csv`, `speed.csv` and a figure
/// for each engine and batch size. `load` is called for each task, and again for each engine.
///
/// # Errors
/// As [`crate::experiment::run`] has them; or an engine that is compared is not there.
pub fn run(
    comparison: &Comparison,
    out: &Path,
    options: &RunOptions,
    load: LoadEngine<'_>,
) -> anyhow::Result<ComparisonReport> {
    let (mut files, mut results, mut tests) = (Vec::new(), Vec::new(), Vec::new());
    for (name, plan) in &comparison.tasks {
        let (report, of_task) = run_task((name, plan), out, options, load)?;
        files.extend(of_task);
        results.push(report.results);
        tests.push(report.test);
    }
    let mut rows: Vec<ComparisonRow> = Vec::new();
    for ((name, plan), results) in comparison.tasks.iter().zip(&results) {
        rows.extend(rows_of_task(name, plan, &comparison.compare, results)?);
    }
    let speed_file = out.join("speed.csv");
    // Whoever decoded the units on other machines has measured nothing.
    let speeds = if options.statistics_only && speed_file.exists() {
        Speeds::read(&speed_file)?
    } else {
        let speeds = Speeds::measure(comparison, &rows, &tests, &options.engine, load)?;
        speeds.write(&speed_file)?;
        speeds
    };
    let table_file = out.join("compare.csv");
    write_rows(&table_file, &rows, &speeds)?;
    files.extend([table_file, speed_file]);
    for figure in ComparisonFigure::all(comparison, &rows, &speeds) {
        files.extend(save(&figure, &out.join("plots"))?);
    }
    ensure!(!rows.is_empty(), "nothing to compare");
    let table = table::text(comparison, &rows, &speeds).context("the table cannot be made")?;
    Ok(ComparisonReport { table, files })
}
