//! The lines that a user writes, and what the user is told beside answers.

use std::io::IsTerminal;

use anyhow::Context;
use calm_core::Generation;
use calm_files::print;

/// The user's messages.
pub(super) struct Lines {
    lines: std::io::Lines<std::io::StdinLock<'static>>,
    is_terminal: bool,
}

impl Lines {
    pub(super) fn new() -> Self {
        let stdin = std::io::stdin();
        Lines { is_terminal: stdin.is_terminal(), lines: stdin.lines() }
    }

    /// The next message; `None` once there are no more, or at an empty line.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<String>> {
        if self.is_terminal {
            print(|out| write!(out, "> "))?;
        }
        let line = self.lines.next().transpose().context("cannot read standard input")?;
        if line.is_none() && self.is_terminal {
            print(|out| writeln!(out))?;
        }
        Ok(line.filter(|line| !line.trim().is_empty()))
    }
}

/// What an answer took, as a line. `prompt` is the length of its prompt and the time of reading that.
pub(super) fn stats(generation: &Generation, seconds: f64, prompt: (usize, f64)) -> String {
    let tokens = generation.tokens.len();
    let layers = generation.average_layers().unwrap_or(0.0);
    let (prompt_tokens, prompt_seconds) = prompt;
    format!(
        "[{tokens} tokens, {layers:.1} layers per token, {:.1} tokens/s; {prompt_seconds:.2} s for a prompt of \
         {prompt_tokens}]",
        tokens as f64 / seconds.max(1e-9)
    )
}
