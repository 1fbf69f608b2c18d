use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use calm_train::{TrainConfig, TrainOptions, TrainReport, Trained};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Configuration of the run, such as configs/train/bundled.toml
    config: PathBuf,
    /// Overrides a key of the configuration, e.g. schedule.steps=100; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// cpu, cuda or cuda:N; the first CUDA device if there is one, else the CPU
    #[arg(long)]
    device: Option<String>,
    /// Threads of libtorch; all cores if not given
    #[arg(long)]
    threads: Option<i32>,
    /// Come to the end of the schedule after this time, in fewer steps than configured if need be; the exit
    /// classifier and the scores are extra
    #[arg(long, value_name = "MINUTES")]
    time_limit: Option<f64>,
    /// Stop with a checkpoint after this time; the same command goes on from there
    #[arg(long, value_name = "MINUTES", conflicts_with = "time_limit")]
    pause_after: Option<f64>,
    /// Only tokenise the data, into the folder of checkpoints: with these files the run needs no data any
    /// more
    #[arg(long, conflicts_with_all = ["device", "time_limit", "pause_after"])]
    prepare: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = TrainConfig::load(&arguments.config, &arguments.overrides)?;
    if arguments.prepare {
        let examples = calm_train::prepare(&config)?;
        println!("{examples} training examples are in {}", config.checkpoints.display());
        return Ok(());
    }
    let device = calm_model::device::init(arguments.device.as_deref())?;
    if let Some(threads) = arguments.threads {
        anyhow::ensure!(threads >= 1, "--threads is {threads}, but must be at least 1");
        tch::set_num_threads(threads);
    }
    let time_limit = duration("--time-limit", arguments.time_limit)?;
    let pause_after = duration("--pause-after", arguments.pause_after)?;
    match calm_train::train(&config, &TrainOptions { device, time_limit, pause_after })? {
        Trained::Finished(report) => show(&config, &report),
        Trained::Paused { step } => {
            println!(
                "paused at step {step} of {}; the same command goes on from there",
                config.schedule.steps
            );
        }
    }
    Ok(())
}

fn duration(flag: &str, minutes: Option<f64>) -> anyhow::Result<Option<Duration>> {
    let duration = minutes.map(|minutes| Duration::try_from_secs_f64(60.0 * minutes)).transpose();
    duration.with_context(|| flag.to_owned())
}

fn show(config: &TrainConfig, report: &TrainReport) {
    println!("model          {}", config.output.display());
    println!("parameters     {}", report.parameters);
    println!("epochs         {:.1} of {} examples", report.epochs, report.examples);
    for task in report.validation.iter().flat_map(|validation| &validation.tasks) {
        println!("held out       {task}");
    }
    if !report.classifier.is_empty() {
        println!("exit classifier after each layer, at 0.5 on held-out examples:");
        println!("{:>5} {:>17} {:>23}", "layer", "F1 of not exiting", "agrees with the last");
        for scores in &report.classifier {
            println!("{:>5} {:>17.3} {:>23.3}", scores.layer, scores.do_not_exit_f1, scores.agreement);
        }
    }
}
