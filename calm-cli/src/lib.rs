//! The `calm` command as a library: a program with measures of its own adds them to the table and calls
//! [`main`].

mod applied;
mod bench;
mod calibrate;
mod chat;
mod fit_confidence;
mod generate;
mod p_value;
mod policy;
mod results;
mod sampling;
mod score;
#[cfg(feature = "libtorch")]
mod train;
#[cfg(feature = "libtorch")]
mod train_heads;
mod training_sources;
mod tune;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use calm_engine::program;
use clap::{Parser, Subcommand};

/// Text generation with as much computation per token as that token needs.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::Arguments),
    Calibrate(Box<calibrate::Arguments>),
    Chat(chat::Arguments),
    FitConfidence(fit_confidence::Arguments),
    /// Generate text for each line of a JSON Lines file
    Generate(generate::Arguments),
    /// Compute one p-value
    PValue(p_value::Arguments),
    Score(score::Arguments),
    /// Train a multi-exit model and its exit classifier, or continue an interrupted training; with --heads,
    /// train exit heads for a model that is there
    #[cfg(feature = "libtorch")]
    Train(Box<train::Arguments>),
    Tune(tune::Arguments),
    /// Build datasets
    #[command(subcommand)]
    Data(DataCommand),
}

#[derive(Subcommand)]
enum DataCommand {
    /// Make the bundled corpus from Debian's package descriptions, which apt fetches
    Debian(DebianArguments),
}

#[derive(clap::Args)]
struct DebianArguments {
    /// Directory that receives the datasets and the tokenizer
    #[arg(long, default_value = "data")]
    out: PathBuf,
    /// Directory of lists that apt fetched before; without it they are fetched into OUT/lists
    #[arg(long)]
    lists: Option<PathBuf>,
    /// URL of a Debian mirror; that of the machine's own bookworm source if not given
    #[arg(long)]
    mirror: Option<String>,
    /// Releases beside bookworm whose translations are added to the training split
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',', default_value = "trixie,forky,bullseye")]
    releases: Vec<String>,
    /// Documentation in both languages that is added to the training split; all that is known if not given
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    documentation: Option<Vec<String>>,
    /// The training split of bookworm alone: no other release, and no documentation
    #[arg(long, conflicts_with_all = ["releases", "documentation"])]
    bookworm_only: bool,
}

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    let success = |()| ExitCode::SUCCESS;
    program::main(|arguments: Arguments| match arguments.command {
        Command::Bench(arguments) => bench::run(&arguments).map(success),
        Command::Calibrate(arguments) => calibrate::run(&arguments),
        Command::Chat(arguments) => chat::run(&arguments).map(success),
        Command::FitConfidence(arguments) => fit_confidence::run(&arguments).map(success),
        Command::Generate(arguments) => generate::run(arguments).map(success),
        Command::PValue(arguments) => p_value::run(&arguments).map(success),
        Command::Score(arguments) => score::run(&arguments).map(success),
        #[cfg(feature = "libtorch")]
        Command::Train(arguments) => train::run(&arguments).map(success),
        Command::Tune(arguments) => tune::run(&arguments).map(success),
        Command::Data(DataCommand::Debian(arguments)) => build_debian(&arguments).map(success),
    })
}

fn build_debian(arguments: &DebianArguments) -> anyhow::Result<()> {
    calm_files::check_output(&arguments.out.join("tokenizer.json"), &[])?;
    let mut options = calm_data::debian::BuildOptions::new(&arguments.out);
    options.lists = arguments.lists.clone();
    options.mirror = arguments.mirror.clone();
    options.releases = arguments.releases.clone();
    if let Some(documentation) = &arguments.documentation {
        options.documentation.clone_from(documentation);
    }
    if arguments.bookworm_only {
        (options.releases, options.documentation) = (Vec::new(), Vec::new());
    }
    let report = calm_data::debian::build(&options).context("the corpus cannot be built")?;
    calm_files::print(|out| {
        for (index, sha256) in &report.indices {
            writeln!(out, "{sha256}  {index}")?;
        }
        writeln!(out, "{:14} {:>8} {:>12} {:>8}", "task", "train", "calibration", "test")?;
        for (task, numbers) in &report.tasks {
            writeln!(out, "{task:14} {:>8} {:>12} {:>8}", numbers.train, numbers.calibration, numbers.test)?;
        }
        for origin in &report.added {
            let (added, origin) = (origin.added, &origin.origin);
            writeln!(out, "{added} of the training pairs for translation come from {origin}")?;
        }
        Ok(())
    })?;
    Ok(())
}
