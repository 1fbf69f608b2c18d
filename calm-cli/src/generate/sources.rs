//! The lines that `calm generate` reads, and their tokens.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail, ensure};
use calm_checkpoint::{ChatOptions, Kept, Message, Tokenizer, cut_source};
use calm_core::Token;
use calm_data::{JsonLines, open_text, plain_text};
use calm_engine::engine::{SourceForm, TextCodec, encode_source};
use serde::Deserialize;

/// A line has one of these; other keys are the caller's.
#[derive(Deserialize)]
#[serde(expecting = "an object with source, prompt, messages or input_ids")]
struct InputLine {
    source: Option<String>,
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
    input_ids: Option<Vec<Token>>,
}

/// How texts become tokens.
pub(super) struct Texts<'a> {
    /// The checkpoint, for messages.
    pub(super) model: &'a Path,
    pub(super) codec: Option<&'a dyn TextCodec>,
    /// Put in front of every source that does not begin with it.
    pub(super) prefix: &'a str,
    /// Whether a source is what a user says, and is put into the model's template of conversations.
    pub(super) chat: bool,
    /// What templates take for the present, the same for all lines.
    pub(super) now: SystemTime,
}

impl Texts<'_> {
    fn tokens(&self, line: InputLine) -> anyhow::Result<Vec<Token>> {
        let InputLine { source, prompt, messages, input_ids } = line;
        Ok(match (source, prompt, messages, input_ids) {
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
        })
    }

    fn codec(&self, what: &str) -> anyhow::Result<&dyn TextCodec> {
        self.codec.with_context(|| format!("{what}, but {}", Tokenizer::missing(self.model)))
    }
}

/// The sources of an input.
pub(super) struct Sources {
    /// Name of the input in messages.
    name: PathBuf,
    pub(super) tokens: Vec<Vec<Token>>,
    /// Line of each source, from 1.
    lines: Vec<usize>,
}

impl Sources {
    pub(super) fn read(path: &Path, texts: &Texts<'_>) -> anyhow::Result<Self> {
        let (reader, name): (Box<dyn BufRead>, PathBuf) = if path == Path::new("-") {
            let input = plain_text(std::io::stdin().lock()).context("cannot read standard input")?;
            (input, "standard input".into())
        } else {
            (open_text(path)?, path.to_owned())
        };
        let (mut sources, mut lines) = (Vec::new(), Vec::new());
        for line in JsonLines::<_, InputLine>::new(reader, &name) {
            let (number, line) = line?;
            let tokens = texts.tokens(line).map_err(|error| at_line(&name, number, &error))?;
            ensure!(!tokens.is_empty(), "{}:{number}: the source has no tokens", name.display());
            sources.push(tokens);
            lines.push(number);
        }
        ensure!(!sources.is_empty(), "{} holds no line to generate for", name.display());
        Ok(Self { name, tokens: sources, lines })
    }

    /// The tokens of all sources, if the model knows each of them, cut to `limit` so that what is
    /// `kept` stays.
    pub(super) fn check(
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

/// An error with its place in front.
fn at_line(name: &Path, number: usize, error: &anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!("{}:{number}: {error:#}", name.display())
}
