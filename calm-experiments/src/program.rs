//! The command line `calm-experiments CONFIG.toml`. A program with measures of its own adds them to the table
//! and calls [`main`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use calm_engine::engine::{Engine, EngineOptions};
use calm_engine::limits::{Limit, check_flags};
use calm_engine::program::{self, EngineArguments, LogArguments, introduce};
use calm_engine::signals;
use calm_names::counted;
use clap::{Parser, Subcommand};

use crate::answer::Answer;
use crate::comparison::{self, Comparison, RunOptions};
use crate::config::Plan;
use crate::estimate::estimate;
use crate::experiment::Prepared;
use crate::jobs::OtherRuns;
use crate::paper::{self, Paper};
use crate::unit::Store;
use crate::{config, experiment, plots};

const EXAMPLES: &str = "\
Examples:
  calm-experiments configs/wmt.toml
  calm-experiments units configs/wmt.toml --missing | xargs -n 20 calm-experiments run configs/wmt.toml --unit
  calm-experiments collect configs/wmt.toml

The first does everything. The others do the same in pieces, which any machine may decode that sees the folder of the
results; several calls of the first one share the units, too.";

/// Runs an experiment: decodes the test and calibration splits with every setting of the configuration,
/// certifies thresholds, and writes CSV files, a summary and figures. A run that was interrupted goes on
/// where it stopped. A configuration with [[tasks]] is a comparison of methods on several tasks,
/// or makes the figures of the paper.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration; configs/wmt.toml explains every key
    #[arg(required = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    run: RunArguments,
    /// Replace a finished run of another model, type of weights, length, batch size or data in the folder
    #[arg(long)]
    overwrite: bool,
    /// Decode nothing but a few examples: show what there is to decode, and about how long it takes
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    log: LogArguments,
}

#[derive(Subcommand)]
enum Command {
    /// List the units of work that a run consists of, one name a line
    Units(UnitsArguments),
    /// Decode units, and make no tables. A unit that is there already, or that another process works on, is
    /// not decoded again
    Run(PartArguments),
    /// Make tables, figures and pages from decoded units, all of which have to be there
    Collect(CollectArguments),
}

/// What all commands know of a run beside its configuration.
#[derive(clap::Args)]
struct RunArguments {
    /// Folder of the results [default: runs/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Overrides a key of the configuration, e.g. decode.batch_size=8; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    engine: EngineArguments,
}

#[derive(clap::Args)]
struct UnitsArguments {
    /// The configuration
    config: PathBuf,
    #[command(flatten)]
    run: RunArguments,
    /// Only those that have no file yet
    #[arg(long)]
    missing: bool,
}

#[derive(clap::Args)]
struct PartArguments {
    /// The configuration
    config: PathBuf,
    #[command(flatten)]
    run: RunArguments,
    /// Names of units, which may be none [default: all]
    // An argument may have several names, or none, since launchers differ in how they quote a list.
    #[arg(long = "unit", value_name = "ID", num_args = 0..)]
    units: Option<Vec<String>>,
}

#[derive(clap::Args)]
struct CollectArguments {
    /// The configuration
    config: PathBuf,
    #[command(flatten)]
    run: RunArguments,
}

/// Runs the experiment that the command line names.
pub fn main() -> ExitCode {
    program::main(|arguments| run(arguments).map(|()| ExitCode::SUCCESS))
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { command, config, run, overwrite, dry_run, log } = arguments;
    log.begin();
    signals::advise("what was decoded stays, and the same command goes on from there");
    match command {
        Some(Command::Units(UnitsArguments { config, run, missing })) => {
            Opened::new(&config, run)?.print_units(missing)
        }
        Some(Command::Run(PartArguments { config, run, units })) => {
            let ids: Option<Vec<&str>> =
                units.as_ref().map(|units| units.iter().flat_map(|names| names.split_whitespace()).collect());
            Opened::new(&config, run)?.decode(ids.as_deref())
        }
        Some(Command::Collect(CollectArguments { config, run })) => {
            Opened::new(&config, run)?.report(OtherRuns::Keep, true)
        }
        None => {
            let opened = Opened::new(&config.context("expected a configuration")?, run)?;
            match dry_run {
                true => opened.estimate(),
                false => opened.report(if overwrite { OtherRuns::Overwrite } else { OtherRuns::Keep }, false),
            }
        }
    }
}

/// What a configuration describes.
enum Experiment {
    One(Box<Plan>),
    Comparison(Comparison),
    Paper(Paper),
}

impl Experiment {
    fn load(config: &Path, overrides: &[String]) -> anyhow::Result<Self> {
        if let Some(paper) = Paper::load(config, overrides)? {
            return Ok(Self::Paper(paper));
        }
        Ok(match Comparison::load(config, overrides)? {
            Some(comparison) => Self::Comparison(comparison),
            None => Self::One(Box::new(config::load(config, overrides)?)),
        })
    }

    /// The plans, of several tasks with their names.
    fn plans(&self) -> Vec<(Option<&str>, &Plan)> {
        match self {
            Self::One(plan) => vec![(None, plan)],
            Self::Comparison(comparison) => {
                comparison.tasks.iter().map(|(name, plan)| (Some(name.as_str()), plan)).collect()
            }
            Self::Paper(paper) => paper.tasks().map(|(name, plan)| (Some(name), plan)).collect(),
        }
    }
}

/// A configuration with the engine and the folder of its run.
struct Opened {
    experiment: Experiment,
    out: PathBuf,
    engine_arguments: EngineArguments,
    options: EngineOptions,
}

impl Opened {
    fn new(config: &Path, arguments: RunArguments) -> anyhow::Result<Self> {
        check_flags([("--threads", arguments.engine.threads, Limit::threads())])?;
        let mut overrides = arguments.overrides;
        overrides.extend(arguments.engine.threads.map(|threads| format!("threads={threads}")));
        let experiment = Experiment::load(config, &overrides)?;
        let (_, first) = experiment.plans()[0];
        let out = arguments.out.unwrap_or_else(|| Path::new("runs").join(&first.name));
        let engine_arguments = EngineArguments { threads: first.threads, ..arguments.engine };
        // There are more shards than threads.
        let options = engine_arguments.options(usize::MAX)?;
        rayon::ThreadPoolBuilder::new().num_threads(options.workers).build_global()?;
        Ok(Self { experiment, out, engine_arguments, options })
    }

    /// Makes tables, figures and pages. What is not decoded yet is decoded first, or is an error if
    /// `statistics_only` is set.
    fn report(self, finished_run: OtherRuns, statistics_only: bool) -> anyhow::Result<()> {
        let Self { experiment, out, engine_arguments, options } = self;
        let tasks = RunOptions { engine: options.clone(), finished_run, statistics_only };
        match experiment {
            Experiment::Paper(paper) => print_files(&paper::run(&paper, &out, &tasks, &load)?),
            Experiment::Comparison(comparison) => {
                let report = comparison::run(&comparison, &out, &tasks, &load)?;
                calm_files::print(|out| writeln!(out, "{}\n", report.table))?;
                print_files(&report.files)
            }
            Experiment::One(plan) => {
                let report = if statistics_only {
                    let decoded_by = Store::new(&out).any_header()?.unit.common.device;
                    engine_arguments.check_decoded_by(&decoded_by)?;
                    experiment::run_statistics(&plan, &out)?
                } else {
                    experiment::run(&plan, &out, finished_run, || load(&plan.model, &options))?
                };
                let figures = match report.unwritten {
                    None => plots::draw_all(&plan, &report.results, &out.join("plots")).map_err(Into::into),
                    Some(error) => Err(error),
                };
                // The answer can be read even where no file can be written.
                let answer = Answer::new(&plan, &report.results).text();
                calm_files::print(|out| writeln!(out, "{answer}\n"))?;
                print_files(&[report.files, figures?].concat())
            }
        }
    }

    fn print_units(&self, only_missing: bool) -> anyhow::Result<()> {
        let mut ids = Vec::new();
        for (task, plan) in self.experiment.plans() {
            let units = self.prepare(task, plan)?.units()?;
            let listed = units.into_iter().filter(|unit| !(only_missing && unit.is_finished));
            ids.extend(listed.map(|unit| in_task(task, &unit.id)));
        }
        Ok(calm_files::print(|out| ids.iter().try_for_each(|id| writeln!(out, "{id}")))?)
    }

    /// Decodes the units with these names, or all.
    fn decode(&self, ids: Option<&[&str]>) -> anyhow::Result<()> {
        let plans = self.experiment.plans();
        let is_known = |id: &&&str| plans.iter().any(|(task, _)| strip_task(*task, id).is_some());
        if let Some(id) = ids.unwrap_or_default().iter().find(|id| !is_known(id)) {
            bail!("the run has no unit {id}");
        }
        if ids.is_some_and(|ids| ids.is_empty()) {
            calm_files::tell(format_args!("--unit names no units: nothing to decode"));
        }
        for (task, plan) in plans {
            let only: Option<BTreeSet<String>> =
                ids.map(|ids| ids.iter().filter_map(|id| strip_task(task, id)).map(str::to_owned).collect());
            if only.as_ref().is_some_and(BTreeSet::is_empty) {
                continue;
            }
            let units = self.prepare(task, plan)?.decode(only.as_ref())?;
            let (decoded, total) = (units.decoded, counted(units.total, "unit"));
            calm_files::tell(format_args!("decoded {decoded} of {total}"));
        }
        Ok(())
    }

    fn estimate(&self) -> anyhow::Result<()> {
        for (task, plan) in self.experiment.plans() {
            let text = estimate(&self.prepare(task, plan)?)?;
            let head = task.map(|task| format!("{task}\n")).unwrap_or_default();
            calm_files::print(|out| write!(out, "{head}{text}"))?;
        }
        Ok(())
    }

    fn prepare<'p>(&self, task: Option<&str>, plan: &'p Plan) -> anyhow::Result<Prepared<'p>> {
        let out = task.map_or_else(|| self.out.clone(), |task| self.out.join(task));
        Prepared::new(plan, &out, OtherRuns::Keep, || load(&plan.model, &self.options))
    }
}

/// The name of a unit among those of several tasks.
fn in_task(task: Option<&str>, id: &str) -> String {
    task.map_or_else(|| id.to_owned(), |task| format!("{task}/{id}"))
}

/// The name of a unit within its task.
fn strip_task<'i>(task: Option<&str>, id: &'i str) -> Option<&'i str> {
    match task {
        Some(task) => id.strip_prefix(task)?.strip_prefix('/'),
        None => Some(id),
    }
}

fn load(model: &Path, options: &EngineOptions) -> anyhow::Result<Engine> {
    let engine = Engine::load(model, options)?;
    introduce(&engine);
    Ok(engine)
}

fn print_files(files: &[PathBuf]) -> anyhow::Result<()> {
    Ok(calm_files::print(|out| files.iter().try_for_each(|file| writeln!(out, "{}", file.display())))?)
}
