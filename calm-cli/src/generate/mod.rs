//! `calm generate`: JSON Lines in, JSON Lines out, in the same order.

mod sources;

use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, ensure};
use calm_core::{BeamOptions, DecodeOptions, PolicySpec, Token};
use calm_engine::decoding::{beam_search_sources, decode_sources};
use calm_engine::engine::{Engine, load_codec};
use calm_engine::limits::{AT_LEAST_ONE, BEAMS, TOKENS, check_flags};
use calm_engine::program::{EngineArguments, introduce};
use calm_experiments::certify::Certificate;
use calm_files::{Writer, tell};
use serde::Serialize;

use self::sources::{Sources, Texts};
use crate::applied::check_calibration;
use crate::policy::PolicyArguments;
use crate::sampling::SamplingArguments;

/// Batches decoded before their results are written.
const BATCHES_PER_WRITE: usize = 64;

const EXAMPLES: &str = "\
Examples:
  calm generate --model models/debian-en-fr --input sources.jsonl --policy calm-agreement-0.9 --output texts.jsonl
  calm generate --model models/debian-en-fr --input - --calibration calibration.json";

/// Generate text for each line of a JSON Lines file.
///
/// A line of the output has the text, its tokens, the layer after which each token left and its confidence
/// there, and the average of these layers.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Directory with config.json, model.safetensors and, for text, tokenizer.json; or a GGUF file
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A {"source": "text"}, {"prompt": "text"}, {"messages": [{"role": "user", "content": "text"}]} or
    /// {"input_ids": [1, 2]} per line; - is standard input. Messages are for models with a chat template
    #[arg(long, value_name = "FILE.jsonl")]
    input: PathBuf,
    /// Receives a line per input line, in the same order; - is standard output. A file appears when all lines
    /// are there
    #[arg(long, value_name = "FILE.jsonl", default_value = "-")]
    output: PathBuf,
    #[command(flatten)]
    policy: PolicyArguments,
    /// Beam search with all layers: so many hypotheses for each source (transformers' num_beams)
    #[arg(long, value_name = "K", conflicts_with_all = ["calibration", "temperature"])]
    beams: Option<usize>,
    /// Scores of hypotheses that have ended are divided by their length to this power
    #[arg(long, value_name = "A", default_value_t = 1.0, allow_negative_numbers = true, requires = "beams")]
    length_penalty: f64,
    /// What `calm calibrate --model` wrote: takes measure, threshold, decay, prefix and the longest source
    /// and output from there
    #[arg(
        long,
        value_name = "FILE.json",
        conflicts_with_all = ["policy", "static_layers", "measure", "threshold", "decay", "exits", "prefix", "chat", "max_tokens", "max_source_tokens", "temperature"]
    )]
    calibration: Option<PathBuf>,
    /// Use the calibration although it was made with another model: nothing is guaranteed then
    #[arg(long, requires = "calibration")]
    force: bool,
    /// Put in front of every source that does not begin with it, and of nothing else
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Sources are what a user says: put the model's template of conversations around them
    #[arg(long)]
    chat: bool,
    /// Longest output in tokens
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_tokens: usize,
    /// Longer sources are cut to so many tokens; never if not given
    #[arg(long, value_name = "N")]
    max_source_tokens: Option<usize>,
    /// Rows decoded together
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch_size: usize,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    engine: EngineArguments,
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
    let chat = calibration.as_ref().map_or(arguments.chat, |calibration| calibration.columns.chat);
    let (model, now) = (arguments.model.as_path(), SystemTime::now());
    let texts = Texts { model, codec: codec.as_deref(), prefix, chat, now };
    let sources = Sources::read(&arguments.input, &texts)?;
    let batches = sources.tokens.len().div_ceil(arguments.batch_size);
    let options = arguments.engine.options(batches)?;
    let mut engine = Engine::with_codec(&arguments.model, &options, codec)?;
    introduce(&engine);
    if let Some(calibration) = &calibration {
        check_calibration(calibration, engine.model(), arguments.force)?;
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
}

/// Writes a line at once, so that a reader or an interruption finds no half of one.
fn write_line(output: &mut Writer, line: &OutputLine<'_>) -> anyhow::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    output.write_all(&bytes).with_context(|| format!("cannot write {}", output.name().display()))
}
