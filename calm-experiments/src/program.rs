//! The command line `calm-experiments CONFIG.toml`. A program with measures of its own adds them to the table
//! and calls [`main`].

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use calm_engine::engine::{Engine, EngineOptions};
use calm_engine::limits::{Limit, check_flags};
use calm_engine::program::{self, EngineArguments, note_unused_tensors};
use calm_engine::signals;
use clap::Parser;

use crate::answer::Answer;
use crate::comparison::{self, Comparison, RunOptions};
use crate::config::Plan;
use crate::paper::{self, Paper};
use crate::runner::OtherRuns;
use crate::unit::Store;
use crate::{config, experiment, plots};

/// Runs an experiment: decodes the test and calibration splits with every setting of the configuration,
/// certifies thresholds, and writes CSV files, a summary and figures. A run that was interrupted goes on
/// where it stopped. A configuration with [[tasks]] is a comparison of methods on several tasks,
/// or makes the figures of the paper.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration; configs/wmt.toml explains every key
    config: PathBuf,
    /// Folder of the results [default: runs/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Overrides a key of the configuration, e.g. decode.batch_size=8; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    #[command(flatten)]
    engine: EngineArguments,
    /// Decode nothing: make tables and figures again from the files of an earlier run, which must be of the
    /// configuration's model
    #[arg(long)]
    statistics_only: bool,
    /// Replace a finished run of another model, type of weights, length, batch size or data in the folder
    #[arg(long, conflicts_with = "statistics_only")]
    overwrite: bool,
}

/// Runs the experiment that the command line names.
pub fn main() -> ExitCode {
    program::main(|arguments| run(arguments).map(|()| ExitCode::SUCCESS))
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    check_flags([("--threads", arguments.engine.threads, Limit::threads())])?;
    let mut overrides = arguments.overrides.clone();
    overrides.extend(arguments.engine.threads.map(|threads| format!("threads={threads}")));
    signals::advise("what was decoded stays, and the same command goes on from there");
    if let Some(paper) = Paper::load(&arguments.config, &overrides)? {
        return arguments.show_paper(&paper);
    }
    match Comparison::load(&arguments.config, &overrides)? {
        Some(comparison) => arguments.compare(&comparison),
        None => {
            let plan = config::load(&arguments.config, &overrides)?;
            arguments.run_one(&plan)
        }
    }
}

impl Arguments {
    fn run_one(self, plan: &Plan) -> anyhow::Result<()> {
        let (finished_run, statistics_only) = (self.finished_run(), self.statistics_only);
        let (out, engine_arguments, options) = self.prepare(plan)?;
        let report = if statistics_only {
            engine_arguments.check_decoded_by(&Store::new(&out).any_header()?.unit.common.device)?;
            experiment::run_statistics(plan, &out)?
        } else {
            experiment::run(plan, &out, finished_run, || load(&plan.model, &options))?
        };
        let figures = match report.unwritten {
            None => plots::draw_all(plan, &report.results, &out.join("plots")).map_err(Into::into),
            Some(error) => Err(error),
        };
        // The answer can be read even where no file can be written.
        let answer = Answer::new(plan, &report.results).text();
        calm_files::print(|out| writeln!(out, "{answer}\n"))?;
        print_files(report.files.iter().chain(&figures?))
    }

    fn compare(self, comparison: &Comparison) -> anyhow::Result<()> {
        let (_, first) = &comparison.tasks[0];
        let (out, options) = self.prepare_tasks(first)?;
        let report = comparison::run(comparison, &out, &options, &load)?;
        calm_files::print(|out| writeln!(out, "{}\n", report.table))?;
        print_files(report.files.iter())
    }

    fn show_paper(self, paper: &Paper) -> anyhow::Result<()> {
        let (out, options) = self.prepare_tasks(paper.first_plan())?;
        print_files(paper::run(paper, &out, &options, &load)?.iter())
    }

    /// The folder of the results of several tasks, and how to run them.
    fn prepare_tasks(self, first: &Plan) -> anyhow::Result<(PathBuf, RunOptions)> {
        let (finished_run, statistics_only) = (self.finished_run(), self.statistics_only);
        let (out, _, engine) = self.prepare(first)?;
        Ok((out, RunOptions { engine, finished_run, statistics_only }))
    }

    fn finished_run(&self) -> OtherRuns {
        if self.overwrite { OtherRuns::Overwrite } else { OtherRuns::Keep }
    }

    /// The folder of the results, and the engine that the flags and the plan ask for.
    fn prepare(self, plan: &Plan) -> anyhow::Result<(PathBuf, EngineArguments, EngineOptions)> {
        let out = self.out.unwrap_or_else(|| Path::new("runs").join(&plan.name));
        let engine_arguments = EngineArguments { threads: plan.threads, ..self.engine };
        // There are more shards than threads.
        let options = engine_arguments.options(usize::MAX)?;
        rayon::ThreadPoolBuilder::new().num_threads(options.workers).build_global()?;
        Ok((out, engine_arguments, options))
    }
}

fn load(model: &Path, options: &EngineOptions) -> anyhow::Result<Engine> {
    let engine = Engine::load(model, options)?;
    note_unused_tensors(&engine);
    Ok(engine)
}

fn print_files<'a>(files: impl Iterator<Item = &'a PathBuf> + Clone) -> anyhow::Result<()> {
    Ok(calm_files::print(|out| files.clone().try_for_each(|file| writeln!(out, "{}", file.display())))?)
}
