//! The sources of an input of `calm generate`.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use calm_data::{JsonLines, open_text, plain_text};

use crate::lines::{Fit, InputLine, Source, Texts};

/// The sources of an input.
pub(super) struct Sources {
    /// Name of the input in messages.
    name: PathBuf,
    sources: Vec<Source>,
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
            sources.push(texts.source(line).map_err(|error| at_line(&name, number, &error))?);
            lines.push(number);
        }
        ensure!(!sources.is_empty(), "{} holds no line to generate for", name.display());
        Ok(Self { name, sources, lines })
    }

    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    /// All sources, if the model can take each of them.
    pub(super) fn check(mut self, fit: Fit) -> anyhow::Result<Vec<Source>> {
        for (source, &line) in self.sources.iter_mut().zip(&self.lines) {
            fit.apply(source).map_err(|error| at_line(&self.name, line, &error))?;
        }
        Ok(self.sources)
    }
}

/// An error with its place in front.
fn at_line(name: &Path, number: usize, error: &anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!("{}:{number}: {error:#}", name.display())
}
