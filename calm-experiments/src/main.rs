//! `calm-experiments CONFIG.toml`: the paper's experiment with T5.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use calm_experiments::engine::{EngineKind, EngineOptions, WeightType, load_engine};
use calm_experiments::{config, experiment, plots, summary};
use clap::Parser;

/// Runs an experiment: decodes the test and calibration splits with every setting of the configuration, certifies
/// thresholds, and writes CSV files, a summary and figures. A run that was interrupted goes on where it stopped.
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
    /// cpu, cuda or cuda:N [default: the first CUDA device, or else the CPU]
    #[arg(long, value_name = "D")]
    device: Option<String>,
    /// cpu, or libtorch where the program was built with it [default: libtorch with a CUDA device, or else cpu]
    #[arg(long, value_name = "E")]
    engine: Option<EngineKind>,
    /// How the cpu engine holds weights: f32, bf16 or int8 [default: as the checkpoint]
    #[arg(long, value_name = "TYPE")]
    dtype: Option<WeightType>,
    /// Worker threads on the CPU [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Decode nothing: make tables and figures again from the files of an earlier run
    #[arg(long)]
    statistics_only: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut overrides = arguments.overrides;
    overrides.extend(arguments.threads.map(|threads| format!("threads={threads}")));
    let plan = config::load(&arguments.config, &overrides)?;
    let out = arguments.out.unwrap_or_else(|| Path::new("runs").join(&plan.name));
    let threads = plan.threads.unwrap_or_else(calm_core::all_cores);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;

    let report = if arguments.statistics_only {
        experiment::run_statistics(&plan, &out)?
    } else {
        let options = EngineOptions {
            kind: arguments.engine,
            device: arguments.device,
            weight_type: arguments.dtype,
            ..EngineOptions::default()
        };
        // There are more shards than threads.
        let options = options.divide(threads, usize::MAX);
        experiment::run(&plan, &out, || load_engine(&plan.model, &options))?
    };
    let figures = plots::draw_all(&plan, &report.results, &out.join("plots"))?;
    println!("{}\n", summary::table(&plan, &report.results));
    for file in report.files.iter().chain(&figures) {
        println!("{}", file.display());
    }
    Ok(())
}

/// One line for each cause, but none that the line before has told already, as the messages of most libraries do.
fn report(error: &anyhow::Error) {
    let mut said = String::new();
    for (index, cause) in error.chain().map(ToString::to_string).enumerate() {
        let line = cause.lines().next().unwrap_or_default().trim_end();
        if index == 0 {
            eprintln!("error: {line}");
        } else if !said.contains(line) {
            eprintln!("  because: {line}");
        }
        said.push_str(line);
    }
}
