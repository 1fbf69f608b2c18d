//! `calm generate`: JSON Lines in, JSON Lines out, in the same order.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use calm_checkpoint::{Kept, Model, Tokenizer, cut_source};
use calm_core::{BeamOptions, DecodeOptions, Filter, PolicySpec, Token};
use calm_data::{JsonLines, open_text, plain_text};
use calm_engine::decoding::{Draws, beam_search_sources, decode_sources};
use calm_engine::engine::{Engine, TextCodec, load_codec};
use calm_engine::limits::{AT_LEAST_ONE, BEAMS, TOKENS, check_flags};
use calm_engine::program::{EngineArguments, note_unused_tensors};
use calm_experiments::certify::Certificate;
use calm_files::{Writer, tell};
use serde::{Deserialize, Serialize};

use crate::policy::PolicyArguments;

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
    /// Receives a line per input line, in the same order; - is standard output. A file appears when all lines
    /// are there
    #[arg(long, default_value = "-")]
    output: PathBuf,
    #[command(flatten)]
    policy: PolicyArguments,
    /// Beam search with all layers: so many hypotheses for each source (transformers' num_beams)
    #[arg(long, value_name = "K", conflicts_with = "calibration")]
    beams: Option<usize>,
    /// Scores of hypotheses that have ended are divided by their length to this power
    #[arg(long, value_name = "A", default_value_t = 1.0, allow_negative_numbers = true, requires = "beams")]
    length_penalty: f64,
    /// What `calm calibrate --model` wrote: takes measure, threshold, decay, prefix and the longest source
    /// and output from there
    #[arg(
        long,
        value_name = "FILE.json",
        conflicts_with_all = ["policy", "static_layers", "measure", "threshold", "decay", "exits", "prefix", "max_tokens", "max_source_tokens", "temperature"]
    )]
    calibration: Option<PathBuf>,
    /// Use the calibration although it was made with another model: nothing is guaranteed then
    #[arg(long, requires = "calibration")]
    force: bool,
    /// Put in front of every source that does not begin with it; nothing is put in front of input_ids
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
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
    sampling: SamplingArguments,
    #[command(flatten)]
    engine: EngineArguments,
}

/// Tokens are drawn instead of taking the best ones, if there is a temperature.
#[derive(clap::Args)]
#[command(next_help_heading = "Sampling")]
struct SamplingArguments {
    /// Draw tokens by their probabilities at this temperature, above 0, instead of taking the best ones
    #[arg(long, value_name = "T", conflicts_with = "beams")]
    temperature: Option<f64>,
    /// Only among so many of the best tokens
    #[arg(long, value_name = "K", requires = "temperature")]
    top_k: Option<usize>,
    /// Only among the fewest best tokens whose probabilities sum up to this
    #[arg(long, value_name = "P", requires = "temperature")]
    top_p: Option<f64>,
    /// What is drawn for a source depends on this and its tokens alone
    #[arg(long, value_name = "N", requires = "temperature", default_value_t = 0)]
    seed: u64,
}

impl SamplingArguments {
    fn draws(&self) -> anyhow::Result<Option<Draws>> {
        let Some(temperature) = self.temperature else { return Ok(None) };
        let filter = Filter { temperature, top_k: self.top_k, top_p: self.top_p };
        filter.check()?;
        Ok(Some(Draws { filter, seed: self.seed }))
    }
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

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let inputs = [Some(&arguments.input), arguments.calibration.as_ref()].into_iter().flatten();
    calm_files::check_output(&arguments.output, &inputs.map(PathBuf::as_path).collect::<Vec<_>>())?;
    let calibration = arguments.calibration.as_deref().map(Certificate::read).transpose()?;
    let (policy, max_tokens, max_source_tokens) = match &calibration {
        Some(calibration) => (calibration.policy()?, calibration.max_tokens, calibration.max_source_tokens),
        None => (arguments.policy.spec()?, arguments.max_tokens, arguments.max_source_tokens),
    };
    check_flags([
        ("--max-tokens", Some(max_tokens), TOKENS),
        ("--max-source-tokens", max_source_tokens, TOKENS),
        ("--batch-size", Some(arguments.batch_size), AT_LEAST_ONE),
        ("--beams", arguments.beams, BEAMS),
    ])?;
    let draws = arguments.sampling.draws()?;
    let beams = arguments.beam_options(&policy, max_tokens)?;

    // Before the model, which may take long to load: mistakes in the input show at once.
    let codec = load_codec(&arguments.model)?;
    let prefix = calibration.as_ref().map_or(&arguments.prefix, |calibration| &calibration.columns.prefix);
    let sources = Sources::read(&arguments, codec.as_deref(), prefix)?;
    let batches = sources.tokens.len().div_ceil(arguments.batch_size);
    let options = arguments.engine.options(batches)?;
    let mut engine = Engine::with_codec(&arguments.model, &options, codec)?;
    note_unused_tensors(&engine);
    if let Some(calibration) = &calibration {
        arguments.check_calibration(calibration, engine.model())?;
    }
    let sources = sources.check(engine.model().num_inputs(), max_source_tokens, engine.kept())?;
    let policy = policy.make(engine.model())?;

    let mut output = Writer::create(&arguments.output)?;
    if let (Some(calibration), Some(path)) = (&calibration, &arguments.calibration) {
        tell(format_args!("note: {}: {}", path.display(), calibration.applied()?));
    }
    let decode_options = DecodeOptions::new(max_tokens);
    let batch_size = arguments.batch_size;
    let workers = engine.models.len();
    let lines_per_write = batch_size.saturating_mul(workers).saturating_mul(BATCHES_PER_WRITE);
    for sources in sources.chunks(lines_per_write) {
        let models = &mut engine.models;
        let generations = match &beams {
            Some(options) => beam_search_sources(models, sources, batch_size, options)?,
            None => decode_sources(models, sources, batch_size, &*policy, &decode_options, draws)?,
        };
        for generation in generations {
            let text = engine.codec.as_ref().map(|codec| codec.decode(&generation.tokens)).transpose()?;
            let line = OutputLine {
                text,
                tokens: &generation.tokens,
                exit_layers: &generation.exit_layers,
                confidence: &generation.confidence,
                average_layers: generation.average_layers(),
            };
            write_line(&mut output, &line)?;
        }
    }
    output.finish()?;
    if let Some(remark) = policy.remark() {
        tell(format_args!("note: {remark}"));
    }
    Ok(())
}

impl Arguments {
    /// How to search with beams, if that is asked for.
    fn beam_options(&self, policy: &PolicySpec, max_tokens: usize) -> anyhow::Result<Option<BeamOptions>> {
        let Some(beams) = self.beams else { return Ok(None) };
        ensure!(*policy == PolicySpec::full(), "--beams is for the policy full alone, not for {policy}");
        let length_penalty = self.length_penalty;
        ensure!(length_penalty.is_finite(), "--length-penalty must be a number, not {length_penalty}");
        Ok(Some(BeamOptions { beams, length_penalty, max_tokens }))
    }

    fn check_calibration(&self, calibration: &Certificate, model: &dyn Model) -> anyhow::Result<()> {
        if let Err(error) = calibration.check_model(model.fingerprint(), model.shape().num_layers) {
            ensure!(self.force, "{error}; --force uses it without its guarantee");
            tell(format_args!("warning: {error}: nothing is guaranteed"));
        }
        if calibration.calibration.fallback {
            tell("note: the calibration certified no threshold, so that no token leaves early");
        }
        Ok(())
    }
}

/// The sources of an input.
struct Sources {
    /// Name of the input in messages.
    name: PathBuf,
    tokens: Vec<Vec<Token>>,
    /// Line of each source, from 1.
    lines: Vec<usize>,
}

impl Sources {
    fn read(arguments: &Arguments, codec: Option<&dyn TextCodec>, prefix: &str) -> anyhow::Result<Self> {
        let path = arguments.input.as_path();
        let (reader, name): (Box<dyn BufRead>, PathBuf) = if path == Path::new("-") {
            let input = plain_text(std::io::stdin().lock()).context("cannot read standard input")?;
            (input, "standard input".into())
        } else {
            (open_text(path)?, path.to_owned())
        };
        let (mut sources, mut lines) = (Vec::new(), Vec::new());
        for line in JsonLines::<_, InputLine>::new(reader, &name) {
            let (number, line) = line?;
            let place = || format!("{}:{number}", name.display());
            let tokens = match (line.source, line.input_ids, codec) {
                (Some(text), None, Some(codec)) => {
                    // A source that has the prefix already is one that was written for this task.
                    let text = if text.starts_with(prefix) { text } else { format!("{prefix}{text}") };
                    codec.encode(&text).with_context(place)?
                }
                (Some(_), None, None) => {
                    bail!("{}: a source, but {}", place(), Tokenizer::missing(&arguments.model))
                }
                (None, Some(tokens), _) => tokens,
                _ => bail!("{}: expected either source or input_ids", place()),
            };
            ensure!(!tokens.is_empty(), "{}: the source has no tokens", place());
            sources.push(tokens);
            lines.push(number);
        }
        ensure!(!sources.is_empty(), "{} holds no line to generate for", name.display());
        Ok(Self { name, tokens: sources, lines })
    }

    /// The tokens of all sources, if the model knows each of them, cut to `limit` so that what is
    /// `kept` stays.
    fn check(
        mut self,
        num_inputs: usize,
        limit: Option<usize>,
        kept: Kept,
    ) -> anyhow::Result<Vec<Vec<Token>>> {
        for (tokens, line) in self.tokens.iter_mut().zip(&self.lines) {
            if let Some(token) = tokens.iter().find(|&&token| token as usize >= num_inputs) {
                let name = self.name.display();
                bail!("{name}:{line}: token {token} is not in the vocabulary, which ends at {num_inputs}");
            }
            if let Some(limit) = limit {
                cut_source(tokens, limit, kept);
            }
        }
        Ok(self.tokens)
    }
}

/// Writes a line at once, so that a reader or an interruption finds no half of one.
fn write_line(output: &mut Writer, line: &OutputLine<'_>) -> anyhow::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    output.write_all(&bytes).with_context(|| format!("cannot write {}", output.name().display()))
}
