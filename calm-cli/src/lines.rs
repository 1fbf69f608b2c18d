//! The lines that `calm generate` and `calm serve` read and write.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, bail, ensure};
use calm_checkpoint::{ChatOptions, Kept, Message, Tokenizer, check_context, cut_source, load_config};
use calm_core::{Generation, Token};
use calm_data::find;
use calm_engine::engine::{Engine, SourceForm, TextCodec, encode_source};
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::decoding::Settings;

/// Keys that lines of an output have themselves, those of errors among them.
const OWN_KEYS: [&str; 6] = ["text", "tokens", "exit_layers", "confidence", "average_layers", "error"];

/// The keys of an input line that are the caller's. They come back as they are, to the digit.
type Carried = BTreeMap<String, Box<RawValue>>;

/// A line has one of the first four; other keys are the caller's.
#[derive(Default)]
pub(crate) struct InputLine {
    source: Option<String>,
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
    input_ids: Option<Vec<Token>>,
    carried: Carried,
}

/// Where the source of a record is that has other names than `source`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SourceColumns {
    /// Column of the source; a field of a struct is STRUCT.FIELD, an element of a list LIST.NUMBER
    #[arg(long = "source-column", value_name = "COLUMN", default_value = "source")]
    source: String,
    /// Column of a text that follows the source after ` context: `
    #[arg(long = "context-column", value_name = "COLUMN")]
    context: Option<String>,
}

impl InputLine {
    /// Takes the source from the columns that flags name.
    pub(crate) fn select(mut self, columns: &SourceColumns) -> anyhow::Result<Self> {
        let is_named = columns.source != "source";
        if !is_named && columns.context.is_none() {
            return Ok(self);
        }
        let record = serde_json::to_value(&self.carried)?;
        let text = |column: &str| {
            let value = find(&record, column).with_context(|| format!("no column `{column}`"))?;
            value.as_str().map(str::to_owned).with_context(|| format!("column `{column}` is no text"))
        };
        let mut source = match is_named {
            true => text(&columns.source)?,
            false => self.source.take().context("no column `source`")?,
        };
        if let Some(context) = &columns.context {
            source += " context: ";
            source += &text(context)?;
        }
        self.carried.remove(&columns.source);
        self.source = Some(source);
        Ok(self)
    }
}

/// What a line asks for.
pub(crate) struct Source {
    pub(crate) tokens: Vec<Token>,
    carried: Carried,
}

/// How texts become tokens.
pub(crate) struct Texts<'a> {
    /// The checkpoint, for messages.
    pub(crate) model: &'a Path,
    pub(crate) codec: Option<&'a dyn TextCodec>,
    /// Put in front of every source that does not begin with it.
    pub(crate) prefix: &'a str,
    /// Whether a source is what a user says, and is put into the model's template of conversations.
    pub(crate) chat: bool,
    /// What templates take for the present, the same for all lines.
    pub(crate) now: SystemTime,
}

impl Texts<'_> {
    /// The source of a line, before the model has been asked whether it can take it.
    pub(crate) fn source(&self, line: InputLine) -> anyhow::Result<Source> {
        let InputLine { source, prompt, messages, input_ids, carried } = line;
        let tokens = match (source, prompt, messages, input_ids) {
            (Some(text), None, None, None) => {
                let codec = self.codec("a source")?;
                // A source that has the prefix already is one that was written for this task.
                let has_prefix = text.starts_with(self.prefix);
                let text = if has_prefix { text } else { format!("{}{text}", self.prefix) };
                encode_source(codec, &text, SourceForm { chat: self.chat, limit: None })?
            }
            (None, Some(text), None, None) => self.codec("a prompt")?.encode(&text)?,
            (None, None, Some(messages), None) => {
                ensure!(!messages.is_empty(), "the conversation has no messages");
                let options = ChatOptions { add_generation_prompt: true, now: self.now };
                self.codec("messages")?.encode_chat(&messages, options)?
            }
            (None, None, None, Some(tokens)) => tokens,
            _ => bail!("expected exactly one of source, prompt, messages and input_ids"),
        };
        ensure!(!tokens.is_empty(), "the source has no tokens");
        if let Some(key) = OWN_KEYS.iter().find(|&&key| carried.contains_key(key)) {
            bail!("the key {key} is one of the output's own, and cannot be carried there");
        }
        Ok(Source { tokens, carried })
    }

    fn codec(&self, what: &str) -> anyhow::Result<&dyn TextCodec> {
        self.codec.with_context(|| format!("{what}, but {}", Tokenizer::missing(self.model)))
    }
}

/// Which sources a model can take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fit {
    num_inputs: usize,
    /// Positions for a source and its output; `None` without a bound.
    context: Option<usize>,
    max_tokens: usize,
    limit: Option<usize>,
    kept: Kept,
}

impl Fit {
    /// What the model of this engine, which lies in `folder`, can take under these settings.
    pub(crate) fn new(engine: &Engine, folder: &Path, settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self {
            num_inputs: engine.model().num_inputs(),
            context: load_config(folder)?.context(),
            max_tokens: settings.max_tokens,
            limit: settings.max_source_tokens,
            kept: engine.kept(),
        })
    }

    /// Cuts a source to its limit, so that what the model wants to read stays. Refuses those that the model
    /// cannot take.
    pub(crate) fn apply(self, source: &mut Source) -> anyhow::Result<()> {
        let (tokens, end) = (&mut source.tokens, self.num_inputs);
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= end) {
            bail!("token {token} is not in the vocabulary, which ends at {end}");
        }
        if let Some(limit) = self.limit {
            cut_source(tokens, limit, self.kept);
        }
        if let Some(context) = self.context {
            check_context([tokens.len()], self.max_tokens, context)?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct OutputLine<'a> {
    #[serde(flatten)]
    carried: &'a Carried,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    tokens: &'a [Token],
    exit_layers: &'a [usize],
    confidence: &'a [Option<f32>],
    average_layers: Option<f64>,
}

impl Source {
    /// The line of an output, with its line break.
    pub(crate) fn output_line(
        &self,
        codec: Option<&dyn TextCodec>,
        generation: &Generation,
    ) -> anyhow::Result<Vec<u8>> {
        let line = OutputLine {
            carried: &self.carried,
            text: codec.map(|codec| codec.decode(&generation.tokens)).transpose()?,
            tokens: &generation.tokens,
            exit_layers: &generation.exit_layers,
            confidence: &generation.confidence,
            average_layers: generation.average_layers(),
        };
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

// Values of other keys stay the text that they are, which `#[serde(flatten)]` would parse.
impl<'de> Deserialize<'de> for InputLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LineVisitor)
    }
}

struct LineVisitor;

impl<'de> Visitor<'de> for LineVisitor {
    type Value = InputLine;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with source, prompt, messages or input_ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InputLine, A::Error> {
        let mut line = InputLine::default();
        while let Some(key) = map.next_key::<String>()? {
            let is_twice = match key.as_str() {
                "source" => replace(&mut line.source, &mut map)?,
                "prompt" => replace(&mut line.prompt, &mut map)?,
                "messages" => replace(&mut line.messages, &mut map)?,
                "input_ids" => replace(&mut line.input_ids, &mut map)?,
                _ => line.carried.insert(key.clone(), map.next_value()?).is_some(),
            };
            if is_twice {
                return Err(A::Error::custom(format_args!("duplicate field `{key}`")));
            }
        }
        Ok(line)
    }
}

/// Reads a value, and says whether there was one already.
fn replace<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    value: &mut Option<T>,
    map: &mut A,
) -> Result<bool, A::Error> {
    let new = map.next_value()?;
    Ok(std::mem::replace(value, new).is_some())
}
