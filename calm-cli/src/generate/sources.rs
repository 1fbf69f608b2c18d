//! The sources of an input of `calm generate`, as many at a time as are decoded together.
//!
//! A file is read twice: once before the model is loaded, so that mistakes show at once, and once while it is
//! decoded, so that memory does not grow with it. A stream is read by a thread of its own, and what has come
//! is decoded without waiting for the rest.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::ensure;
use calm_data::{JsonLines, has_lines_of_json, open_text, read_records};

use crate::lines::{InputLine, Source, SourceColumns, Texts};

/// How long is waited for more lines of a stream once there is one to decode.
const LINGER: Duration = Duration::from_millis(20);

/// Lines of a stream that are read before those ahead of them are decoded.
const LINES_AHEAD: usize = 4096;

/// A line with its number, counted from 1.
type Line = anyhow::Result<(usize, InputLine)>;

/// An input.
pub(super) struct Input {
    path: PathBuf,
    columns: SourceColumns,
    /// Whether it can be read again.
    is_file: bool,
}

impl Input {
    pub(super) fn new(path: &Path, columns: SourceColumns) -> Self {
        let is_file = path.metadata().is_ok_and(|metadata| metadata.is_file());
        Self { path: path.to_owned(), columns, is_file }
    }

    /// Number of the sources of a file, all of which become tokens; `None` for a stream, where mistakes show
    /// when they come.
    pub(super) fn check(&self, texts: &Texts<'_>) -> anyhow::Result<Option<usize>> {
        if !self.is_file {
            ensure!(
                self.path == Path::new("-") || self.path.exists(),
                "cannot read {}: No such file",
                self.name()
            );
            return Ok(None);
        }
        let mut count = 0;
        for line in self.lines_of_file()? {
            self.source(line?, texts)?;
            count += 1;
        }
        ensure!(count > 0, "{} holds no line to generate for", self.name());
        Ok(Some(count))
    }

    /// Hands on the sources with the numbers of their lines, at most `most` at a time.
    pub(super) fn for_each_chunk(
        &self,
        most: usize,
        texts: &Texts<'_>,
        mut handle: impl FnMut(Vec<(usize, Source)>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let source = |line: Line| self.source(line?, texts);
        let mut is_empty = true;
        let mut handle = |lines: Vec<Line>| {
            is_empty = false;
            handle(lines.into_iter().map(source).collect::<anyhow::Result<_>>()?)
        };
        if self.is_file {
            let mut lines = self.lines_of_file()?.peekable();
            while lines.peek().is_some() {
                handle(lines.by_ref().take(most).collect())?;
            }
        } else {
            let lines = self.lines_of_stream();
            while let Some(chunk) = received(&lines, most) {
                handle(chunk)?;
            }
        }
        ensure!(!is_empty, "{} holds no line to generate for", self.name());
        Ok(())
    }

    /// An error with its place in front.
    pub(super) fn at_line(&self, number: usize, error: &anyhow::Error) -> anyhow::Error {
        anyhow::anyhow!("{}:{number}: {error:#}", self.name())
    }

    fn source(
        &self,
        (number, line): (usize, InputLine),
        texts: &Texts<'_>,
    ) -> anyhow::Result<(usize, Source)> {
        let source = line.select(&self.columns).and_then(|line| texts.source(line));
        Ok((number, source.map_err(|error| self.at_line(number, &error))?))
    }

    fn lines_of_file(&self) -> anyhow::Result<Box<dyn Iterator<Item = Line>>> {
        if !has_lines_of_json(&self.path) {
            let records = read_records(&self.path)?;
            return Ok(Box::new(records.map(|record| {
                let (number, value) = record?;
                Ok((number, serde_json::from_str(&value.to_string())?))
            })));
        }
        // Carried values stay what they are to the digit.
        let lines = JsonLines::<_, InputLine>::new(open_text(&self.path)?, &self.path);
        Ok(Box::new(lines.map(|line| Ok(line?))))
    }

    fn lines_of_stream(&self) -> Receiver<Line> {
        let (sender, receiver) = sync_channel(LINES_AHEAD);
        let (path, name) = (self.path.clone(), self.name());
        std::thread::spawn(move || match open_text(&path) {
            Ok(text) => {
                let mut lines = JsonLines::<_, InputLine>::new(text, name);
                // Nobody reads any more after an error.
                while lines.next().is_some_and(|line| sender.send(line.map_err(Into::into)).is_ok()) {}
            }
            Err(error) => drop(sender.send(Err(error.into()))),
        });
        receiver
    }

    /// How messages call it.
    fn name(&self) -> String {
        if self.path == Path::new("-") {
            "standard input".to_owned()
        } else {
            self.path.display().to_string()
        }
    }
}

/// Waits for a line, and takes those that come at once behind it.
fn received(lines: &Receiver<Line>, most: usize) -> Option<Vec<Line>> {
    let mut chunk = vec![lines.recv().ok()?];
    while chunk.len() < most {
        match lines.recv_timeout(LINGER) {
            Ok(line) => chunk.push(line),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    Some(chunk)
}
