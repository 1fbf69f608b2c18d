//! `calm generate`: sources in, JSON Lines out, in the same order.

mod sources;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, ensure};
use calm_checkpoint::trained_source_tokens;
use calm_core::{BeamOptions, DecodeOptions, PolicySpec, Token};
use calm_engine::decoding::{beam_search_sources, decode_sources};
use calm_engine::engine::{Engine, load_codec};
use calm_engine::limits::{BEAMS, check_flags};
use calm_engine::program::introduce;
use calm_files::{Progress, Writer, tell};

use self::sources::Input;
use crate::decoding::{DecodingArguments, Settings};
use crate::lines::{Fit, SourceColumns, Texts};

/// Batches decoded before their results are written.
const BATCHES_PER_WRITE: usize = 64;

const EXAMPLES: &str = "\
Examples:
  calm generate --model models/debian-en-fr --input sources.jsonl --policy calm-agreement-0.9 --output texts.jsonl
  calm generate --model models/debian-en-fr --input data/translation/test.parquet --output texts.jsonl
  calm generate --model models/debian-en-fr --input - --calibration calibration.json";

/// Generate text for each line of a JSON Lines file, or each record of another one.
///
/// Of a stream, lines are answered as they come. A line of the output has the other keys of its input, the
/// text, its tokens, the layer after which each token left and its confidence there, and the average of these
/// layers.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Directory with config.json, model.safetensors and, for text, tokenizer.json; or a GGUF file
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A {"source": "text"}, {"prompt": "text"}, {"messages": [{"role": "user", "content": "text"}]} or
    /// {"input_ids": [1, 2]} per line; - is standard input. Messages are for models with a chat template. Or
    /// a .parquet, .json, .csv or .tsv file. All but Parquet may be compressed (.gz, .zst)
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    #[command(flatten)]
    columns: SourceColumns,
    /// Receives a line per input line, in the same order; - is standard output. A file appears when all lines
    /// are there
    #[arg(long, value_name = "FILE.jsonl", default_value = "-")]
    output: PathBuf,
    #[command(flatten)]
    decoding: DecodingArguments,
    /// Beam search with all layers: so many hypotheses for each source (transformers' num_beams)
    #[arg(long, value_name = "K", conflicts_with_all = ["calibration", "temperature"])]
    beams: Option<usize>,
    /// Scores of hypotheses that have ended are divided by their length to this power
    #[arg(long, value_name = "A", default_value_t = 1.0, allow_negative_numbers = true, requires = "beams")]
    length_penalty: f64,
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
    let Settings { batch_size, max_tokens, draws, .. } = settings;
    let input = Input::new(&arguments.input, arguments.columns.clone());
    let (prefix, chat) = (settings.prefix.as_str(), settings.chat);
    let count = input.check(&Texts { model, codec: codec.as_deref(), prefix, chat, now })?;
    let batches = count.map_or(usize::MAX, |count| count.div_ceil(batch_size));
    let options = arguments.decoding.engine.options(batches)?;
    let engine = Engine::with_codec(&arguments.model, &options, codec)?;
    introduce(&engine);
    settings.check_model(engine.model())?;
    let fit = Fit::new(&engine, model, &settings)?;
    let policy = settings.policy.make(engine.model())?;
    let Engine { mut models, codec, .. } = engine;
    let codec = codec.as_deref();
    let texts = Texts { model, codec, prefix, chat, now };

    let mut output = Writer::create(&arguments.output)?;
    settings.tell_certified();
    let decode_options = DecodeOptions::new(max_tokens);
    let lines_per_write = batch_size.saturating_mul(models.len()).saturating_mul(BATCHES_PER_WRITE);
    let progress = Progress::new("generating", "lines", count);
    let mut longer = LongerThanTrained::of(&settings, model);
    input.for_each_chunk(lines_per_write, &texts, |mut sources| {
        let mut tokens: Vec<Vec<Token>> = Vec::with_capacity(sources.len());
        for (line, source) in &mut sources {
            fit.apply(source).map_err(|error| input.at_line(*line, &error))?;
            longer.look_at(*line, source.tokens.len());
            tokens.push(std::mem::take(&mut source.tokens));
        }
        let generations = match &beams {
            Some(options) => beam_search_sources(&mut models, &tokens, batch_size, options)?,
            None => decode_sources(&mut models, &tokens, batch_size, &*policy, &decode_options, draws)?,
        };
        for ((_, source), generation) in sources.iter().zip(&generations) {
            write_line(&mut output, &source.output_line(codec, generation)?)?;
        }
        progress.add(sources.len());
        Ok(())
    })?;
    progress.finish();
    longer.tell();
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

/// Sources that are longer than any that the model was trained with.
struct LongerThanTrained {
    trained: Option<usize>,
    /// The first one's line and length, and how many there are.
    first: Option<(usize, usize)>,
    count: usize,
}

impl LongerThanTrained {
    fn of(settings: &Settings, model: &Path) -> Self {
        // What is cut was decided about.
        let trained = match settings.max_source_tokens {
            Some(_) => None,
            None => trained_source_tokens(model),
        };
        Self { trained, first: None, count: 0 }
    }

    fn look_at(&mut self, line: usize, length: usize) {
        if self.trained.is_some_and(|trained| length > trained) {
            self.first.get_or_insert((line, length));
            self.count += 1;
        }
    }

    fn tell(&self) {
        if let (Some(trained), Some((line, length))) = (self.trained, self.first) {
            tell(format_args!(
                "warning: {} longer than the {trained} tokens that the model was trained with, the first one in line {line} \
                 ({length}); --max-source-tokens {trained} cuts them",
                if self.count == 1 {
                    "a source is".to_owned()
                } else {
                    format!("{} sources are", self.count)
                }
            ));
        }
    }
}

/// Writes a line at once, so that a reader or an interruption finds no half of one.
fn write_line(output: &mut Writer, line: &[u8]) -> anyhow::Result<()> {
    output.write_all(line).with_context(|| format!("cannot write {}", output.name().display()))
}
