//! `calm generate`: JSON Lines in, JSON Lines out, in the same order.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use calm_checkpoint::{T5Config, Tokenizer};
use calm_core::{
    Backbone, DecodeOptions, Generation, Measure, Policy, PolicySpec, Propagation, Threshold, Token,
    batch_by_length, cut_source, decode, in_input_order, map_batches,
};
use calm_data::JsonLines;
use calm_experiments::certify::Certificate;
use calm_experiments::engine::{T5, load_backbones};
use calm_experiments::runner::Engine;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::engine::EngineArguments;

/// Batches decoded before their results are written.
const BATCHES_PER_WRITE: usize = 64;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Directory with config.json, model.safetensors and, for text, tokenizer.json
    #[arg(long)]
    model: PathBuf,
    /// A {"source": "text"} or {"input_ids": [1, 2]} per line; - is standard input
    #[arg(long)]
    input: PathBuf,
    /// Receives a line per input line, in the same order; - is standard output
    #[arg(long, default_value = "-")]
    output: PathBuf,
    /// Where each token stops
    #[arg(long, value_enum, default_value = "full")]
    policy: PolicyKind,
    /// What `calm calibrate --model` wrote: takes measure, threshold, decay and the longest source and output from there
    #[arg(
        long,
        value_name = "FILE.json",
        conflicts_with_all = ["policy", "static_layers", "measure", "threshold", "decay", "max_tokens", "max_source_tokens"]
    )]
    calibration: Option<PathBuf>,
    /// Use the calibration although it was made with another model: nothing is guaranteed then
    #[arg(long, requires = "calibration")]
    force: bool,
    /// Layers that every token takes (static)
    #[arg(long)]
    static_layers: Option<usize>,
    /// softmax, pruned, state or classifier (calm)
    #[arg(long)]
    measure: Option<Measure>,
    /// A token exits once its confidence reaches this, from 0 to 1; at 1 none does (calm)
    #[arg(long, allow_negative_numbers = true)]
    threshold: Option<f64>,
    /// Decay tau of the threshold along the output; constant if not given (calm)
    #[arg(long, allow_negative_numbers = true)]
    decay: Option<f64>,
    /// Longest output
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    /// Longer sources are cut; never if not given
    #[arg(long)]
    max_source_tokens: Option<usize>,
    /// Rows decoded together
    #[arg(long, default_value_t = 16)]
    batch_size: usize,
    #[command(flatten)]
    engine: EngineArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PolicyKind {
    /// All layers for every token
    Full,
    /// The same number of layers for every token
    Static,
    /// The first layer that agrees with the last one; computes all, for comparison
    Oracle,
    /// The first layer whose confidence reaches the threshold
    Calm,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with source or input_ids")]
struct InputLine {
    source: Option<String>,
    input_ids: Option<Vec<Token>>,
}

#[derive(Serialize)]
struct OutputLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    tokens: &'a [Token],
    exit_layers: &'a [usize],
    confidence: &'a [Option<f32>],
    average_layers: Option<f64>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let calibration = arguments.calibration.as_deref().map(Certificate::read).transpose()?;
    let (policy, max_tokens, max_source_tokens) = match &calibration {
        Some(calibration) => (calibration.policy()?, calibration.max_tokens, calibration.max_source_tokens),
        None => (arguments.policy()?, arguments.max_tokens, arguments.max_source_tokens),
    };
    ensure!(max_tokens >= 1, "--max-tokens is 0, but must be at least 1");
    ensure!(max_source_tokens != Some(0), "--max-source-tokens is 0, but must be at least 1");
    ensure!(arguments.batch_size >= 1, "--batch-size is 0, but must be at least 1");
    ensure!(arguments.engine.threads != Some(0), "--threads is 0, but must be at least 1");

    let tokenizer_file = arguments.model.join("tokenizer.json");
    let config = T5Config::load(&arguments.model.join("config.json"))?;
    let tokenizer = if tokenizer_file.is_file() { Some(Tokenizer::load(&tokenizer_file)?) } else { None };
    let mut sources = read_sources(&arguments.input, tokenizer.as_ref(), config.vocab_size as usize)?;
    if let Some(limit) = max_source_tokens {
        sources.iter_mut().for_each(|tokens| cut_source(tokens, limit));
    }
    let batches = sources.len().div_ceil(arguments.batch_size);
    let mut engine = load_backbones(&arguments.model, &arguments.engine.options(batches))?;
    let model = &engine.backbones[0];
    if !model.unexpected().is_empty() {
        eprintln!("warning: tensors the model has no use for: {}", model.unexpected().join(", "));
    }
    if let Some(calibration) = &calibration {
        arguments.check_calibration(calibration, &engine.fingerprint)?;
    }
    let policy = policy.resolve(model)?;

    let mut output = Output::open(&arguments.output)?;
    let decoding = Decoding {
        policy: &policy,
        options: DecodeOptions { max_tokens, propagation: Propagation::Lazy },
        batch_size: arguments.batch_size,
    };
    let workers = engine.backbones.len();
    let lines_per_write = arguments.batch_size.saturating_mul(workers).saturating_mul(BATCHES_PER_WRITE);
    for sources in sources.chunks(lines_per_write) {
        for generation in decoding.run(&mut engine, sources)? {
            let text = tokenizer.as_ref().map(|t| t.decode(&generation.tokens)).transpose()?;
            let line = OutputLine {
                text,
                tokens: &generation.tokens,
                exit_layers: &generation.exit_layers,
                confidence: &generation.confidence,
                average_layers: generation.average_layers(),
            };
            output.write_line(&line)?;
        }
    }
    output.finish()
}

struct Decoding<'a> {
    policy: &'a Policy,
    options: DecodeOptions,
    batch_size: usize,
}

impl Decoding<'_> {
    fn run(&self, engine: &mut Engine<T5, ()>, sources: &[Vec<Token>]) -> anyhow::Result<Vec<Generation>> {
        let lengths: Vec<usize> = sources.iter().map(Vec::len).collect();
        let batches = batch_by_length(&lengths, self.batch_size);
        let prepare_thread = engine.prepare_thread;
        let results = map_batches(&mut engine.backbones, &batches, |model, rows| {
            prepare_thread();
            let sources: Vec<&[Token]> = rows.iter().map(|&row| sources[row].as_slice()).collect();
            let encoded = model.encode(&sources)?;
            anyhow::Ok(decode(model, &encoded, sources.len(), self.policy, &self.options)?)
        });
        let generations = results.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        Ok(in_input_order(&batches, generations.into_iter().flatten()))
    }
}

impl Arguments {
    fn check_calibration(&self, calibration: &Certificate, fingerprint: &str) -> anyhow::Result<()> {
        if let Err(error) = calibration.check_model(fingerprint) {
            ensure!(self.force, "{error}; --force uses it without its guarantee");
            eprintln!("warning: {error}: nothing is guaranteed");
        }
        if calibration.calibration.fallback {
            eprintln!("note: the calibration certified no threshold, so that no token leaves early");
        }
        Ok(())
    }

    fn policy(&self) -> anyhow::Result<PolicySpec> {
        let unused = |flags: &[(&str, bool)]| match flags.iter().find(|(_, given)| *given) {
            Some((flag, _)) => bail!("{flag} has no meaning for this policy"),
            None => Ok(()),
        };
        let static_flags = [("--static-layers", self.static_layers.is_some())];
        let calm_flags = [
            ("--measure", self.measure.is_some()),
            ("--threshold", self.threshold.is_some()),
            ("--decay", self.decay.is_some()),
        ];
        match self.policy {
            PolicyKind::Full | PolicyKind::Oracle => {
                unused(&static_flags)?;
                unused(&calm_flags)?;
                Ok(if self.policy == PolicyKind::Full { PolicySpec::Full } else { PolicySpec::Oracle })
            }
            PolicyKind::Static => {
                unused(&calm_flags)?;
                let layers = self.static_layers.context("--policy static needs --static-layers")?;
                Ok(PolicySpec::Static { layers })
            }
            PolicyKind::Calm => {
                unused(&static_flags)?;
                let threshold = self.threshold.context("--policy calm needs --threshold")?;
                Ok(PolicySpec::Calm {
                    measure: self.measure.unwrap_or(Measure::Softmax),
                    threshold: Threshold::new(threshold, self.decay)?,
                })
            }
        }
    }
}

fn read_sources(
    path: &Path,
    tokenizer: Option<&Tokenizer>,
    vocab_size: usize,
) -> anyhow::Result<Vec<Vec<Token>>> {
    let (reader, name): (Box<dyn BufRead>, PathBuf) = if path == Path::new("-") {
        (Box::new(std::io::stdin().lock()), "standard input".into())
    } else {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        (Box::new(BufReader::new(file)), path.to_owned())
    };
    let mut sources = Vec::new();
    for line in JsonLines::<_, InputLine>::new(reader, &name) {
        let (number, line) = line?;
        let place = || format!("{}:{number}", name.display());
        let tokens = match (line.source, line.input_ids, tokenizer) {
            (Some(text), None, Some(tokenizer)) => tokenizer.encode(&text).with_context(place)?,
            (Some(_), None, None) => bail!("{}: a source, but the model has no tokenizer.json", place()),
            (None, Some(tokens), _) => tokens,
            _ => bail!("{}: expected either source or input_ids", place()),
        };
        ensure!(!tokens.is_empty(), "{}: the source has no tokens", place());
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            bail!("{}: token {token} is not in the vocabulary, which ends at {vocab_size}", place());
        }
        sources.push(tokens);
    }
    ensure!(!sources.is_empty(), "{} holds no line to generate for", name.display());
    Ok(sources)
}

/// Where the lines go.
struct Output {
    writer: Box<dyn Write>,
    name: String,
}

impl Output {
    fn open(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            let writer = Box::new(BufWriter::new(std::io::stdout().lock()));
            return Ok(Output { writer, name: "standard output".to_owned() });
        }
        let name = path.display().to_string();
        let file = File::create(path).with_context(|| format!("cannot write {name}"))?;
        Ok(Output { writer: Box::new(BufWriter::new(file)), name })
    }

    fn write_line(&mut self, line: &OutputLine<'_>) -> anyhow::Result<()> {
        let written = serde_json::to_writer(&mut self.writer, line)
            .map_err(std::io::Error::from)
            .and_then(|()| self.writer.write_all(b"\n"));
        written.with_context(|| format!("cannot write {}", self.name))
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.writer.flush().with_context(|| format!("cannot write {}", self.name))
    }
}
