//! `calm train --heads`: exit heads for a model that is there, from its own predictions.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use calm_core::{Exits, HeadKind};
use calm_engine::engine::load_codec;
use calm_engine::limits::{AT_LEAST_ONE, check_flags};
use calm_files::tell;
use calm_names::counted;
use calm_train::{HeadsConfig, TrainedHeads, train_heads};
use clap::Arg;
use tch::Device;

use crate::training_sources::TrainingSources;

/// What the flags stand below in the help, and by which the others are told from them.
const HEADING: &str = "Exit heads for a model that is there";

/// The flags of `--heads`, of which the configuration of a training has no need.
#[derive(clap::Args)]
#[command(next_help_heading = HEADING, mut_args(only_with_heads))]
pub(crate) struct HeadsArguments {
    /// Train exit heads on the frozen model in --model, by the divergence from its own predictions on --data:
    /// no labels are needed
    #[arg(long, requires_all = ["model", "data"])]
    pub(crate) heads: bool,
    /// Checkpoint directory, which receives calm.heads.safetensors
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    #[command(flatten)]
    sources: TrainingSources,
    /// low-rank (h + up(down(norm(h))) in front of the shared head), affine (W h + b in front of it) or
    /// linear (a norm and a matrix over the vocabulary of its own)
    #[arg(long, value_name = "KIND", default_value = "low-rank")]
    head: HeadKind,
    /// Rank of low-rank heads
    #[arg(long, value_name = "N", default_value_t = 64)]
    rank: usize,
    /// Layers that get a head; all below the last if not given
    #[arg(long, value_name = "K,K")]
    layers: Option<Exits>,
    /// Steps of AdamW
    #[arg(long, value_name = "N", default_value_t = 500)]
    steps: usize,
    /// Learning rate of the first step, which falls to 0 in a line
    #[arg(long, value_name = "RATE", default_value_t = 1e-3)]
    learning_rate: f64,
    /// Padded source tokens plus padded output tokens of a step
    #[arg(long, value_name = "N", default_value_t = 4000)]
    batch_tokens: usize,
}

/// Has a flag of exit heads be given with `--heads` alone.
fn only_with_heads(flag: Arg) -> Arg {
    let is_of_heads = flag.get_help_heading() == Some(HEADING) && flag.get_id() != "heads";
    if is_of_heads { flag.required(false).requires("heads") } else { flag }
}

pub(crate) fn run(
    arguments: &HeadsArguments,
    device: Device,
    threads: usize,
    overwrite: bool,
) -> anyhow::Result<()> {
    arguments.sources.check()?;
    check_flags([
        ("--rank", Some(arguments.rank), AT_LEAST_ONE),
        ("--steps", Some(arguments.steps), AT_LEAST_ONE),
        ("--batch-tokens", Some(arguments.batch_tokens), AT_LEAST_ONE),
    ])?;
    let rate = arguments.learning_rate;
    ensure!(rate.is_finite() && rate > 0.0, "--learning-rate: is {rate}, but must be positive");
    let model = arguments.model.as_deref().context("--heads needs --model")?;
    calm_files::check_output(&model.join(calm_checkpoint::HEADS_FILE), &arguments.sources.files())?;
    let codec = load_codec(model)?.ok_or_else(|| calm_checkpoint::Tokenizer::missing(model))?;
    let sources = arguments.sources.read(&*codec)?;
    tell(format_args!("decoding {} at full depth", counted(sources.len(), "example")));
    let config = HeadsConfig {
        kind: arguments.head,
        rank: arguments.rank,
        layers: arguments.layers,
        steps: arguments.steps as u64,
        learning_rate: rate,
        batch_tokens: arguments.batch_tokens,
        max_tokens: arguments.sources.max_tokens,
        batch_size: arguments.sources.batch_size,
        workers: threads,
        seed: arguments.sources.seed,
        overwrite,
    };
    let trained = train_heads(model, &sources, &config, device)?;
    calm_files::print(|out| show(out, &trained))?;
    Ok(())
}

fn show(out: &mut dyn Write, trained: &TrainedHeads) -> io::Result<()> {
    let tokens = counted(trained.held_out_tokens, "held-out token");
    writeln!(
        out,
        "{tokens}: divergence from the last layer in nats, and share of tokens that are the last layer's"
    )?;
    writeln!(
        out,
        "{:>5} {:>17} {:>9} {:>17} {:>9}",
        "layer", "KL of shared head", "exit head", "share, shared head", "exit head"
    )?;
    for score in &trained.scores {
        writeln!(
            out,
            "{:>5} {:>17.4} {:>9.4} {:>18.3} {:>9.3}",
            score.layer, score.shared_divergence, score.divergence, score.shared_agreement, score.agreement
        )?;
    }
    writeln!(out, "{}", trained.path.display())
}
