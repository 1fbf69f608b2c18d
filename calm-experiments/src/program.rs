//! The command line `calm-experiments CONFIG.toml`. A program with measures of its own adds them to the table
//! and calls [`main`].

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use calm_engine::engine::Engine;
use calm_engine::limits::{Limit, check_flags};
use calm_engine::program::{self, EngineArguments, note_unused_tensors};
use calm_engine::signals;
use clap::Parser;

use crate::runner::OtherRuns;
use crate::unit::Store;
use crate::{config, experiment, plots, summary};

/// Runs an experiment: decodes the test and calibration splits with every setting of the configuration,
/// certifies thresholds, and writes CSV files, a summary and figures. A run that was interrupted goes on
/// where it stopped.
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
    let mut overrides = arguments.overrides;
    overrides.extend(arguments.engine.threads.map(|threads| format!("threads={threads}")));
    let plan = config::load(&arguments.config, &overrides)?;
    let out = arguments.out.unwrap_or_else(|| Path::new("runs").join(&plan.name));
    let engine_arguments = EngineArguments { threads: plan.threads, ..arguments.engine };
    // There are more shards than threads.
    let options = engine_arguments.options(usize::MAX)?;
    rayon::ThreadPoolBuilder::new().num_threads(options.workers).build_global()?;

    signals::advise("what was decoded stays, and the same command goes on from there");
    let report = if arguments.statistics_only {
        engine_arguments.check_decoded_by(&Store::new(&out).any_header()?.unit.common.device)?;
        experiment::run_statistics(&plan, &out)?
    } else {
        let finished_run = if arguments.overwrite { OtherRuns::Overwrite } else { OtherRuns::Keep };
        experiment::run(&plan, &out, finished_run, || {
            let engine = Engine::load(&plan.model, &options)?;
            note_unused_tensors(&engine);
            Ok(engine)
        })?
    };
    let figures = match report.unwritten {
        None => plots::draw_all(&plan, &report.results, &out.join("plots")).map_err(Into::into),
        Some(error) => Err(error),
    };
    // The table can be read even where no file can be written.
    let table = summary::table(&plan, &report.results);
    calm_files::print(|out| writeln!(out, "{table}\n"))?;
    let figures = figures?;
    calm_files::print(|out| {
        report.files.iter().chain(&figures).try_for_each(|file| writeln!(out, "{}", file.display()))
    })?;
    Ok(())
}
