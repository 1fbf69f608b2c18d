//! `calm generate`: JSON Lines in, JSON Lines out, in the same order.

mod sources;

use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, ensure};
use calm_core::{BeamOptions, DecodeOptions, PolicySpec, Token};
use calm_engine::decoding::{beam_search_sources, decode_sources};
use calm_engine::engine::{Engine, load_codec};
use calm_engine::limits::{BEAMS, check_flags};
use calm_engine::program::introduce;
use calm_files::{Writer, tell};

use self::sources::Sources;
use crate::decoding::{DecodingArguments, Settings};
use crate::lines::{Fit, Texts};

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
    /// Beam search with all layers: so many hypotheses for each source (transformers' num_beams)
    #[arg(long, value_name = "K", conflicts_with_all = ["calibration", "temperature"])]
    beams: Option<usize>,
    /// Scores of hypotheses that have ended are divided by their length to this power
    #[arg(long, value_name = "A", default_value_t = 1.0, allow_negative_numbers = true, requires = "beams")]
    length_penalty: f64,
    #[command(flatten)]
    decoding: DecodingArguments,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let inputs = [Some(&arguments.input), arguments.decoding.calibration.as_ref()].into_iter().flatten();
    calm_files::check_output(&arguments.output, &inputs.map(PathBuf::as_path).collect::<Vec<_>>())?;
    let settings = arguments.decoding.settings()?;
    check_flags([("--beams", arguments.beams, BEAMS)])?;
    let beams = arguments.beam_options(&settings)?;

    // Before the model, which may take long to load: mistakes in the input show at once.
    let codec = load_codec(&arguments.model)?;
    let (model, now) = (arguments.model.as_path(), SystemTime::now());
    let texts = Texts { model, codec: codec.as_deref(), prefix: &settings.prefix, chat: settings.chat, now };
    let sources = Sources::read(&arguments.input, &texts)?;
    let batch_size = settings.batch_size;
    let options = arguments.decoding.engine.options(sources.len().div_ceil(batch_size))?;
    let mut engine = Engine::with_codec(&arguments.model, &options, codec)?;
    introduce(&engine);
    settings.check_model(engine.model())?;
    let mut sources = sources.check(Fit::new(&engine, model, &settings)?)?;
    let policy = settings.policy.make(engine.model())?;

    let mut output = Writer::create(&arguments.output)?;
    settings.tell_certified();
    let decode_options = DecodeOptions::new(settings.max_tokens);
    let workers = engine.models.len();
    let lines_per_write = batch_size.saturating_mul(workers).saturating_mul(BATCHES_PER_WRITE);
    for sources in sources.chunks_mut(lines_per_write) {
        let models = &mut engine.models;
        let tokens: Vec<Vec<Token>> =
            sources.iter_mut().map(|source| std::mem::take(&mut source.tokens)).collect();
        let generations = match &beams {
            Some(options) => beam_search_sources(models, &tokens, batch_size, options)?,
            None => decode_sources(models, &tokens, batch_size, &*policy, &decode_options, settings.draws)?,
        };
        for (source, generation) in sources.iter().zip(&generations) {
            write_line(&mut output, &source.output_line(engine.codec.as_deref(), generation)?)?;
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
    fn beam_options(&self, settings: &Settings) -> anyhow::Result<Option<BeamOptions>> {
        let Some(beams) = self.beams else { return Ok(None) };
        let (policy, max_tokens) = (&settings.policy, settings.max_tokens);
        ensure!(*policy == PolicySpec::full(), "--beams is for the policy full alone, not for {policy}");
        let length_penalty = self.length_penalty;
        ensure!(length_penalty.is_finite(), "--length-penalty must be a number, not {length_penalty}");
        Ok(Some(BeamOptions { beams, length_penalty, max_tokens }))
    }
}

/// Writes a line at once, so that a reader or an interruption finds no half of one.
fn write_line(output: &mut Writer, line: &[u8]) -> anyhow::Result<()> {
    output.write_all(line).with_context(|| format!("cannot write {}", output.name().display()))
}
