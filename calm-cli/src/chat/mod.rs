//! `calm chat`: a conversation in the terminal.

mod conversation;
mod terminal;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use anyhow::{Context, ensure};
use calm_checkpoint::{ChatOptions, Message, Model, Tokenizer, load_config};
use calm_core::{DecodeOptions, Generation, Policy, Token, decode_streamed};
use calm_engine::decoding::{Draws, read_batch};
use calm_engine::engine::{Engine, TextCodec, load_codec};
use calm_engine::limits::{TOKENS, check_flags};
use calm_engine::program::{EngineArguments, introduce};
use calm_engine::signals::Endable;
use calm_engine::text_stream::TextStream;
use calm_experiments::certify::Certificate;
use calm_files::{print, tell};

use self::conversation::Conversation;
use self::terminal::Lines;
use crate::applied::check_calibration;
use crate::policy::PolicyArguments;
use crate::sampling::SamplingArguments;

/// Tokens of the longest answer where the context has room for it.
const LONGEST_ANSWER: usize = 512;

/// Talk with a model that has a chat template.
///
/// Each line is a message, and the answer appears while it is decoded. An empty line or Ctrl-D ends the
/// conversation. Ctrl-C ends an answer, or the program where there is none. Messages come from standard input
/// line by line where that is no terminal.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  calm chat --model models/SmolLM2-135M-Instruct.Q4_1.gguf --policy \
                        self-speculative --stats")]
pub(crate) struct Arguments {
    /// GGUF file, or directory with config.json, model.safetensors, tokenizer.json and a chat template
    #[arg(long, value_name = "FILE.gguf")]
    model: PathBuf,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    policy: PolicyArguments,
    /// What `calm calibrate --model` wrote: takes measure, threshold, decay and the longest output from there
    #[arg(
        long,
        value_name = "FILE.json",
        conflicts_with_all = ["policy", "static_layers", "measure", "threshold", "decay", "exits", "max_tokens", "temperature"]
    )]
    calibration: Option<PathBuf>,
    /// Use the calibration although it was made with another model: nothing is guaranteed then
    #[arg(long, requires = "calibration")]
    force: bool,
    /// Longest answer in tokens [default: 512, or half of a context of less than 1024]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Say after each answer how many tokens it has, how many layers each of them took, and how long
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    engine: EngineArguments,
}

/// The longest answer where the user asks for none.
fn usual_length(context: Option<usize>) -> usize {
    context.map_or(LONGEST_ANSWER, |context| LONGEST_ANSWER.min(context / 2))
}

/// What answers.
struct Chat<'a> {
    model: &'a dyn Model,
    codec: &'a dyn TextCodec,
    policy: &'a dyn Policy,
    max_tokens: usize,
    draws: Option<Draws>,
    /// Positions for a conversation and the answer to it; `None` without a bound.
    context: Option<usize>,
    stats: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let calibration = arguments.calibration.as_deref().map(Certificate::read).transpose()?;
    check_flags([("--max-tokens", arguments.max_tokens, TOKENS)])?;
    let draws = arguments.sampling.draws()?;
    let context = load_config(&arguments.model)?.context();
    let (policy, max_tokens) = match &calibration {
        Some(calibration) => (calibration.policy()?, calibration.max_tokens),
        None => (arguments.policy.spec()?, arguments.max_tokens.unwrap_or_else(|| usual_length(context))),
    };
    if let Some(context) = context {
        ensure!(max_tokens < context, "--max-tokens is {max_tokens}, and the model's context {context}");
    }
    let codec = load_codec(&arguments.model)?.ok_or_else(|| Tokenizer::missing(&arguments.model))?;
    let mut conversation = Conversation::new(arguments.system.clone());
    // Before the model is loaded: whether there is a template, and one with system messages.
    encode(&*codec, &conversation.opened())?;

    let engine = Engine::with_codec(&arguments.model, &arguments.engine.options(1)?, Some(codec))?;
    introduce(&engine);
    let model = engine.model();
    model.enter_thread();
    if let (Some(calibration), Some(path)) = (&calibration, &arguments.calibration) {
        check_calibration(calibration, model, arguments.force)?;
        tell(format_args!("note: {}: {}", path.display(), calibration.applied()?));
    }
    let policy = policy.make(model)?;
    let (codec, stats) = (engine.text_codec()?, arguments.stats);
    let chat = Chat { model, codec, policy: &*policy, max_tokens, draws, context, stats };
    let mut lines = Lines::new();
    while let Some(line) = lines.next()? {
        chat.answer(&mut conversation, line)?;
    }
    if let Some(remark) = policy.remark() {
        tell(format_args!("note: {remark}"));
    }
    Ok(())
}

impl Chat<'_> {
    /// Answers a message, and adds both to the conversation.
    fn answer(&self, conversation: &mut Conversation, text: String) -> anyhow::Result<()> {
        conversation.push("user", text);
        let longest = self.context.map_or(usize::MAX, |context| context + 1 - self.max_tokens);
        let fitted = conversation.fit(longest, |messages| encode(self.codec, messages))?;
        if fitted.left_out > 0 {
            let left_out = fitted.left_out;
            tell(format_args!("note: the first {left_out} messages are left out, to fit into the context"));
        }
        let Some(tokens) = fitted.tokens else {
            tell(format_args!(
                "note: the message is too long: it and an answer have to fit into the context"
            ));
            conversation.pop();
            return Ok(());
        };
        let answer = self.stream(&tokens)?;
        conversation.push("assistant", answer);
        Ok(())
    }

    /// Prints the answer to a conversation while it is decoded, and returns it.
    fn stream(&self, prompt: &[Token]) -> anyhow::Result<String> {
        let endable = Endable::begin();
        let batch = read_batch(self.model, &[prompt])?;
        let sampling = self.draws.map(|draws| draws.sampling(&[prompt])).transpose()?;
        let options = DecodeOptions { sampling, ..DecodeOptions::new(self.max_tokens) };
        let mut text = TextStream::new(self.codec);
        let mut printed = Ok(());
        let started = Instant::now();
        let generation = decode_streamed(&*batch.prompt, self.policy, &options, |token| {
            let piece = text.push(token.token);
            printed = piece.and_then(|piece| Ok(print(|out| write!(out, "{piece}"))?));
            match printed.is_err() || endable.is_told_to_end() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        let seconds = started.elapsed().as_secs_f64();
        printed?;
        let is_ended = endable.is_told_to_end();
        drop(endable);
        let rest = text.finish()?;
        print(|out| writeln!(out, "{rest}"))?;
        if !is_ended && self.is_cut(&generation) {
            tell(format_args!("note: the answer was cut after --max-tokens {}", self.max_tokens));
        }
        if self.stats {
            let prompt = (prompt.len(), batch.seconds_per_row);
            tell(terminal::stats(&generation, seconds, prompt));
        }
        Ok(text.text().to_owned())
    }

    fn is_cut(&self, generation: &Generation) -> bool {
        let ends = |token: &Token| self.model.shape().eos_tokens.contains(token);
        generation.tokens.len() == self.max_tokens && !generation.tokens.last().is_some_and(ends)
    }
}

/// The tokens of a conversation, with the beginning of an answer behind it.
fn encode(codec: &dyn TextCodec, messages: &[Message]) -> anyhow::Result<Vec<Token>> {
    let options = ChatOptions { add_generation_prompt: true, now: SystemTime::now() };
    codec.encode_chat(messages, options).context("cannot write the conversation as the model reads it")
}
