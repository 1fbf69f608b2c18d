use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use calm_engine::limits::{Limit, check_flags};
use calm_engine::signals;
use calm_train::{TrainConfig, TrainOptions, TrainReport, Trained};
use tch::Device;

use crate::train_heads::{self, HeadsArguments};

/// Longer times are slips of the keyboard, and the clock has no room for the longest.
const MOST_MINUTES: f64 = 365.0 * 24.0 * 60.0;

const EXAMPLES: &str = "\
Examples:
  calm train configs/train/own-t5.toml --set output=models/mine
  calm train --heads --model models/debian-en-fr --data data/train/translation.parquet --limit 400";

/// Train a multi-exit model, or exit heads for a model that is there (--heads)
///
/// The exit classifier and the probabilities of `agreement` and `beta` are part of a multi-exit training. One
/// that was interrupted goes on from its last checkpoint.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Configuration of the run, such as configs/train/bundled.toml
    #[arg(required_unless_present = "heads", conflicts_with = "heads")]
    config: Option<PathBuf>,
    /// Overrides a key of the configuration, e.g. schedule.steps=100; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "heads")]
    overrides: Vec<String>,
    /// cpu, cuda or cuda:N; the first CUDA device if there is one, else the CPU
    #[arg(long)]
    device: Option<String>,
    /// Threads of libtorch; all cores if not given
    #[arg(long)]
    threads: Option<usize>,
    /// Come to the end of the schedule after this time, in fewer steps than configured if need be; the exit
    /// classifier and the scores are extra
    #[arg(long, value_name = "MINUTES", conflicts_with = "heads")]
    time_limit: Option<f64>,
    /// Stop with a checkpoint after this time; the same command goes on from there
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["time_limit", "heads"])]
    pause_after: Option<f64>,
    /// Only tokenise the data, into the folder of checkpoints: with these files the run needs no data any
    /// more
    #[arg(long, conflicts_with_all = ["device", "time_limit", "pause_after", "heads"])]
    prepare: bool,
    /// Replace the model in the output folder, if there is one that this run has not written itself; with
    /// --heads, the exit heads that the model has
    #[arg(long, conflicts_with = "prepare")]
    overwrite: bool,
    #[command(flatten)]
    heads: HeadsArguments,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    check_flags([("--threads", arguments.threads, Limit::threads())])?;
    let Some(config) = &arguments.config else {
        let device = start_libtorch(arguments)?;
        let threads = arguments.threads.unwrap_or_else(|| tch::get_num_threads().max(1) as usize);
        return train_heads::run(&arguments.heads, device, threads, arguments.overwrite);
    };
    let config = TrainConfig::load(config, &arguments.overrides)?;
    let time_limit = duration("--time-limit", arguments.time_limit)?;
    let pause_after = duration("--pause-after", arguments.pause_after)?;
    calm_files::check_output(&config.checkpoints.join("log.jsonl"), &[])?;
    if arguments.prepare {
        let (examples, folder) = (calm_train::prepare(&config)?, config.checkpoints.display());
        calm_files::print(|out| writeln!(out, "{examples} training examples are in {folder}"))?;
        return Ok(());
    }
    calm_files::check_output(&config.output.join("config.json"), &[])?;
    let device = start_libtorch(arguments)?;
    signals::advise("the same command goes on from the last checkpoint");
    let options = TrainOptions { device, time_limit, pause_after, overwrite: arguments.overwrite };
    match calm_train::train(&config, &options)? {
        Trained::Finished(report) => calm_files::print(|out| show(out, &config, &report))?,
        Trained::Paused { step } => {
            let steps = config.schedule.steps;
            calm_files::print(|out| {
                writeln!(out, "paused at step {step} of {steps}; the same command goes on from there")
            })?;
        }
    }
    Ok(())
}

fn start_libtorch(arguments: &Arguments) -> anyhow::Result<Device> {
    let device = calm_model::device::init(arguments.device.as_deref())?;
    if let Some(threads) = arguments.threads {
        tch::set_num_threads(i32::try_from(threads)?);
    }
    Ok(device)
}

fn duration(flag: &str, minutes: Option<f64>) -> anyhow::Result<Option<Duration>> {
    ensure!(
        minutes.is_none_or(|minutes| minutes <= MOST_MINUTES || minutes.is_nan()),
        "{flag}: is {}, but must be at most {MOST_MINUTES}, which is a year",
        minutes.unwrap_or_default()
    );
    let duration = minutes.map(|minutes| Duration::try_from_secs_f64(60.0 * minutes)).transpose();
    duration.with_context(|| flag.to_owned())
}

fn show(out: &mut dyn Write, config: &TrainConfig, report: &TrainReport) -> io::Result<()> {
    writeln!(out, "model          {}", config.output.display())?;
    writeln!(out, "parameters     {}", report.parameters)?;
    writeln!(out, "epochs         {:.1} of {} examples", report.epochs, report.examples)?;
    for task in report.validation.iter().flat_map(|validation| &validation.tasks) {
        writeln!(out, "held out       {task}")?;
    }
    if !report.classifier.is_empty() {
        writeln!(out, "exit classifier after each layer, at 0.5 on held-out examples:")?;
        writeln!(out, "{:>5} {:>17} {:>23}", "layer", "F1 of not exiting", "agrees with the last")?;
        for scores in &report.classifier {
            writeln!(out, "{:>5} {:>17.3} {:>23.3}", scores.layer, scores.do_not_exit_f1, scores.agreement)?;
        }
    }
    Ok(())
}
