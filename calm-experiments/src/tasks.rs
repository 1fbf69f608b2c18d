//! Configurations with a list of tasks: each is an experiment of its own, with what its table says on top of
//! the rest of the file.

use std::path::{Path, PathBuf};

use calm_engine::engine::{Engine, EngineOptions};
use calm_files::{Document, Error};

use crate::config::{Plan, plan_of};
use crate::experiment::{self, Report};
use crate::jobs::OtherRuns;
use crate::plots;

/// The key of the list.
pub const TASKS: &str = "tasks";

/// One experiment of several.
pub(crate) struct Task {
    /// The name, which is that of its folder too.
    pub(crate) name: String,
    pub(crate) plan: Plan,
    /// The whole configuration as it is for this task.
    pub(crate) document: Document,
}

/// Reads the tasks of a configuration, none if it is a single experiment.
///
/// # Errors
/// One of them is no configuration, or has no name of its own.
pub(crate) fn tasks_of(document: &Document) -> Result<Vec<Task>, Error> {
    let mut tasks: Vec<Task> = Vec::new();
    for index in 0..document.count_tables(TASKS)? {
        let document = document.clone().with_table_of(TASKS, index);
        let plan = plan_of(&document)?;
        let Some(name) = plan.raw.task.clone() else {
            let message = "needs a name, as `task = \"translation\"`";
            return Err(document.invalid(&format!("{TASKS}[{index}]"), message));
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        {
            return Err(document.invalid("task", "must be of letters, digits, hyphens and underscores"));
        }
        if tasks.iter().any(|other| other.name == name) {
            return Err(document.invalid("task", format!("{name} is there twice")));
        }
        tasks.push(Task { name, plan, document });
    }
    Ok(tasks)
}

/// How tasks are run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The engine of the experiments.
    pub engine: EngineOptions,
    /// What becomes of finished runs of other models or data.
    pub finished_run: OtherRuns,
    /// Whether tables are made of what an earlier run has left, and nothing is decoded.
    pub statistics_only: bool,
}

/// Loads the model of a folder.
pub type LoadEngine<'a> = &'a dyn Fn(&Path, &EngineOptions) -> anyhow::Result<Engine>;

/// Runs one task below `out`, figures included, and returns what it found and its files.
///
/// # Errors
/// As [`experiment::run`] has them, or a file cannot be written.
pub(crate) fn run_task(
    (name, plan): (&str, &Plan),
    out: &Path,
    options: &RunOptions,
    load: LoadEngine<'_>,
) -> anyhow::Result<(Report, Vec<PathBuf>)> {
    calm_files::tell(format_args!("{name}"));
    let folder = out.join(name);
    let mut report = if options.statistics_only {
        experiment::run_statistics(plan, &folder)?
    } else {
        experiment::run(plan, &folder, options.finished_run, || load(&plan.model, &options.engine))?
    };
    if let Some(error) = report.unwritten.take() {
        return Err(error);
    }
    let mut files = report.files.clone();
    files.extend(plots::draw_all(plan, &report.results, &folder.join("plots"))?);
    Ok((report, files))
}
