//! The `calm` command as a library: a program with measures of its own adds them to the table and calls
//! [`main`].

mod applied;
mod bench;
mod calibrate;
mod calibration_plan;
mod chat;
mod decoding;
mod fit_confidence;
mod generate;
mod lines;
mod manual;
mod p_value;
mod policy;
mod results;
mod sampling;
mod score;
mod serve;
#[cfg(feature = "libtorch")]
mod train;
#[cfg(feature = "libtorch")]
mod train_heads;
mod training_sources;
mod tune;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use calm_engine::program::{self, LogArguments};
use clap::{CommandFactory, Parser, Subcommand};

/// Text generation with as much computation per token as that token needs.
///
/// There is a command for each step: from data and a model to exits, a certified threshold, texts and scores.
#[derive(Parser)]
#[command(name = "calm", version = env!("CALM_VERSION"), after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArguments,
}

const EXAMPLES: &str = "\
Examples:
  calm calibrate --model models/debian-en-fr --data data/translation/calibration.parquet --limit 400 --measure state --metric chrf --delta 0.2
  calm generate --model models/debian-en-fr --calibration calibration.json --input sources.jsonl --output texts.jsonl

A threshold for which outputs are at most 0.2 from the full model's on average, and texts with it. `calm COMMAND --help`
has an example of each command, units and defaults. Times are in seconds or as the flag says, lengths in tokens,
layers counted from 1.";

// In the order of the work.
#[derive(Subcommand)]
enum Command {
    /// Build datasets
    #[command(subcommand)]
    Data(DataCommand),
    #[cfg(feature = "libtorch")]
    Train(Box<train::Arguments>),
    FitConfidence(fit_confidence::Arguments),
    Tune(tune::Arguments),
    Calibrate(Box<calibrate::Arguments>),
    Generate(Box<generate::Arguments>),
    Serve(Box<serve::Arguments>),
    Chat(chat::Arguments),
    Bench(bench::Arguments),
    Score(score::Arguments),
    PValue(p_value::Arguments),
    #[command(hide = true)]
    Man(manual::ManArguments),
    #[command(hide = true)]
    Completions(manual::CompletionsArguments),
}

#[derive(Subcommand)]
enum DataCommand {
    /// Make the bundled corpus from Debian's package descriptions, which apt fetches
    Debian(DebianArguments),
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  calm data debian --out data")]
struct DebianArguments {
    /// Directory that receives the datasets and the tokenizer
    #[arg(long, value_name = "DIR", default_value = "data")]
    out: PathBuf,
    /// Directory of lists that apt fetched before; without it they are fetched into OUT/lists
    #[arg(long, value_name = "DIR")]
    lists: Option<PathBuf>,
    /// URL of a Debian mirror; that of the machine's own bookworm source if not given
    #[arg(long, value_name = "URL")]
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
    program::main(|arguments: Arguments| {
        arguments.log.begin();
        run(arguments.command)
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let success = |()| ExitCode::SUCCESS;
    match command {
        Command::Data(DataCommand::Debian(arguments)) => build_debian(&arguments).map(success),
        #[cfg(feature = "libtorch")]
        Command::Train(arguments) => train::run(&arguments).map(success),
        Command::FitConfidence(arguments) => fit_confidence::run(&arguments).map(success),
        Command::Tune(arguments) => tune::run(&arguments).map(success),
        Command::Calibrate(arguments) => calibrate::run(&arguments),
        Command::Generate(arguments) => generate::run(*arguments).map(success),
        Command::Serve(arguments) => serve::run(*arguments).map(success),
        Command::Chat(arguments) => chat::run(&arguments).map(success),
        Command::Bench(arguments) => bench::run(&arguments).map(success),
        Command::Score(arguments) => score::run(&arguments).map(success),
        Command::PValue(arguments) => p_value::run(&arguments).map(success),
        Command::Man(arguments) => manual::write_pages(&arguments, Arguments::command()).map(success),
        Command::Completions(arguments) => {
            manual::print_completions(&arguments, Arguments::command()).map(success)
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands of a help's examples, which stand below it with two blanks before them.
    fn examples(command: &clap::Command) -> Vec<String> {
        let help = command.get_after_help().expect("no example").to_string();
        help.lines().filter(|line| line.starts_with("  calm ")).map(str::to_owned).collect()
    }

    #[test]
    fn every_command_has_an_example_that_its_flags_allow() {
        Arguments::command().debug_assert();
        let (mut all, mut seen) = (vec![Arguments::command()], 0);
        while let Some(command) = all.pop() {
            all.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
            if command.is_subcommand_required_set() && command.get_name() != "calm" {
                continue;
            }
            let examples = examples(&command);
            assert!(!examples.is_empty(), "{}", command.get_name());
            for example in examples {
                let words = example.split_whitespace().map(|word| word.trim_matches('\''));
                let parsed = Arguments::try_parse_from(words);
                assert!(parsed.is_ok(), "{example}: {}", parsed.err().expect("an error"));
                seen += 1;
            }
        }
        assert!(seen > 10, "{seen} examples");
    }
}
