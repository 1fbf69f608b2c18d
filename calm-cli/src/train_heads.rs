//! `calm train --heads`: exit heads for a model that is there, from its own predictions.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use calm_checkpoint::folder_of;
use calm_core::{Exits, HeadKind, Token};
use calm_engine::engine::{TextCodec, load_codec};
use calm_engine::limits::{AT_LEAST_ONE, check_flags};
use calm_files::tell;
use calm_names::counted;
use calm_train::{Coverage, HeadScore, HeadsConfig, Material, TrainedHeads, train_heads};
use clap::{Arg, ArgGroup};
use tch::Device;

use crate::training_sources::TrainingSources;

/// What the flags stand below in the help, and by which the others are told from them.
const HEADING: &str = "Exit heads for a model that is there";

/// The flags of `--heads`, of which the configuration of a training has no need.
#[derive(clap::Args)]
#[command(next_help_heading = HEADING, mut_args(only_with_heads))]
#[command(group(ArgGroup::new("material").args(["data", "text"])))]
pub(crate) struct HeadsArguments {
    /// Train exit heads on the frozen model in --model, by the divergence from its own predictions on --data
    /// or --text: no labels are needed
    #[arg(long, requires_all = ["model", "material"])]
    pub(crate) heads: bool,
    /// Checkpoint directory, which receives calm.heads.safetensors, or a GGUF file NAME.gguf, beside which it
    /// comes into NAME.calm/
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// For a model without an encoder: learn from its predictions along the paragraphs of this text, and not
    /// along outputs of its own
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    text: Option<PathBuf>,
    #[command(flatten)]
    sources: TrainingSources,
    /// low-rank (h + up(down(norm(h))) in front of the shared head), affine (W h + b in front of it) or
    /// linear (a norm and a matrix over the vocabulary of its own)
    #[arg(long, value_name = "KIND", default_value = "low-rank")]
    head: HeadKind,
    /// Rank of low-rank heads
    #[arg(long, value_name = "N", default_value_t = 64)]
    rank: usize,
    /// Layers that get a head, the last one only with --vocabulary; all below the last if not given
    #[arg(long, value_name = "K,K")]
    layers: Option<Exits>,
    /// Heads know only the tokens that make up this share of the model's own outputs, such as 0.98: a product
    /// with a large vocabulary costs as much as many layers
    #[arg(long, value_name = "SHARE")]
    vocabulary: Option<f64>,
    /// Keep the model's states and the training's checkpoint there: an interrupted training goes on, and
    /// another one begins with these states [default: heads.work beside the model, removed in the end]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Steps of AdamW
    #[arg(long, value_name = "N", default_value_t = 500)]
    steps: usize,
    /// Learning rate of the first step, which falls to 0 in a line
    #[arg(long, value_name = "RATE", default_value_t = 1e-3)]
    learning_rate: f64,
    /// Output tokens of a step
    #[arg(long, value_name = "N", default_value_t = 1000)]
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
    if let Some(share) = arguments.vocabulary {
        ensure!(share > 0.0 && share <= 1.0, "--vocabulary: is {share}, but must be above 0 and at most 1");
    }
    let model = arguments.model.as_deref().context("--heads needs --model")?;
    let inputs = arguments.text.iter().map(PathBuf::as_path).chain(arguments.sources.files());
    let heads = folder_of(model).join(calm_checkpoint::HEADS_FILE);
    calm_files::check_output(&heads, &inputs.collect::<Vec<_>>())?;
    let codec = load_codec(model)?.ok_or_else(|| calm_checkpoint::Tokenizer::missing(model))?;
    let rows = match &arguments.text {
        Some(text) => paragraphs(text, &*codec, arguments.sources.max_tokens)?,
        None => arguments.sources.read(&*codec)?,
    };
    let material = match &arguments.text {
        Some(_) => Material::Texts(&rows),
        None => Material::Sources(&rows),
    };
    tell(format_args!("decoding {} at full depth", counted(rows.len(), "example")));
    let config = HeadsConfig {
        kind: arguments.head,
        rank: arguments.rank,
        layers: arguments.layers,
        vocabulary: arguments.vocabulary,
        steps: arguments.steps as u64,
        learning_rate: rate,
        batch_tokens: arguments.batch_tokens,
        max_tokens: arguments.sources.max_tokens,
        batch_size: arguments.sources.batch_size,
        workers: threads,
        seed: arguments.sources.seed,
        overwrite,
        work: arguments.work.clone(),
    };
    let trained = train_heads(model, material, &config, device)?;
    calm_files::print(|out| show(out, &trained))?;
    Ok(())
}

/// The paragraphs of a text as tokens, those of two tokens or more, cut to `longest`.
fn paragraphs(path: &Path, codec: &dyn TextCodec, longest: usize) -> anyhow::Result<Vec<Vec<Token>>> {
    let text = String::from_utf8(calm_files::read(path)?)
        .with_context(|| format!("{} is no text in UTF-8", path.display()))?;
    let mut rows = Vec::new();
    for paragraph in text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty()) {
        let mut tokens = codec.encode(paragraph)?;
        tokens.truncate(longest);
        if tokens.len() > 1 {
            rows.push(tokens);
        }
    }
    Ok(rows)
}

fn show(out: &mut dyn Write, trained: &TrainedHeads) -> io::Result<()> {
    if let Some(Coverage { size, of, share, held_out_share, .. }) = &trained.vocabulary {
        let (share, held_out_share) = (100.0 * share, 100.0 * held_out_share);
        writeln!(
            out,
            "heads know {size} of {of} tokens: {share:.1} % of the outputs, {held_out_share:.1} % of those held out"
        )?;
    }
    let tokens = counted(trained.held_out_tokens, "held-out token");
    writeln!(
        out,
        "{tokens}: divergence from the last layer in nats, and share of tokens that are the last layer's;\n\
         share of tokens with a confidence of 0.9 and more, and how many of these are the last layer's"
    )?;
    let columns =
        ["layer", "KL: shared head", "exit head", "share: shared head", "exit head", "sure", "right"];
    let [layer, shared_kl, kl, shared, own, sure, right] = columns;
    writeln!(out, "{layer:>5} {shared_kl:>16} {kl:>9} {shared:>19} {own:>9} {sure:>6} {right:>6}")?;
    for score in &trained.scores {
        let HeadScore { layer, shared_divergence, divergence, shared_agreement, agreement, .. } = score;
        let HeadScore { confident, confident_agreement, .. } = score;
        writeln!(
            out,
            "{layer:>5} {shared_divergence:>16.4} {divergence:>9.4} {shared_agreement:>19.3} {agreement:>9.3} \
             {confident:>6.3} {confident_agreement:>6.3}"
        )?;
    }
    writeln!(out, "{}", trained.path.display())
}
