//! Standard output and standard error, which may be closed, full, or read by somebody who has seen enough.

use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::Error;

/// How messages call standard output.
pub(crate) const STANDARD_OUTPUT: &str = "standard output";

/// Prints what `write` writes. A program calls it once its files are written. A reader who has seen enough is
/// no error.
///
/// # Errors
/// [`Error::Write`], on a full disk for instance.
pub fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    to(&mut io::stdout().lock(), STANDARD_OUTPUT, write)
}

/// As [`print()`], on standard error: for a table whose standard output has something else.
///
/// # Errors
/// [`Error::Write`]
pub fn print_aside(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    to(&mut io::stderr().lock(), "standard error", write)
}

fn to(
    stream: &mut dyn Write,
    name: &str,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    let mut buffer = BufWriter::new(stream);
    match write(&mut buffer).and_then(|()| buffer.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::write(Path::new(name))(error)),
        _ => Ok(()),
    }
}

/// How a program says what it does, on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people, and bars on a terminal.
    Text,
    /// A JSON object a line, with `time` (seconds since 1970), `level` (error, warning, note, info or
    /// progress) and `message`.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("the formats are text and json"),
        }
    }
}

static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Chooses how [`tell`] writes from now on.
pub fn set_log_format(format: LogFormat) {
    IS_JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

pub(crate) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// Tells the user something on standard error, on a line of its own, whose first word may be its level, as in
/// `note: `. Work does not stop because nobody can be told.
pub fn tell(line: impl Display) {
    let line = line.to_string();
    if !is_json() {
        return write_aside(&line);
    }
    let levels = [("error", "error"), ("  because", "error"), ("warning", "warning"), ("note", "note")];
    let split = levels.into_iter().find_map(|(word, level)| {
        Some((level, line.strip_prefix(word).and_then(|rest| rest.strip_prefix(": "))?))
    });
    let (level, message) = split.unwrap_or(("info", &line));
    log_json(level, message.trim(), &());
}

/// Writes a line for programs, with more keys than a message has.
pub(crate) fn log_json(level: &str, message: &str, more: &impl Serialize) {
    #[derive(Serialize)]
    struct Line<'a, T> {
        time: f64,
        level: &'a str,
        message: &'a str,
        #[serde(flatten)]
        more: &'a T,
    }
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    if let Ok(line) = serde_json::to_string(&Line { time, level, message, more }) {
        write_aside(&line);
    }
}

fn write_aside(line: &str) {
    let mut stream = io::stderr().lock();
    let _ = stream.write_all(format!("{line}\n").as_bytes()).and_then(|()| stream.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that fails with this kind of error.
    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_may_leave_and_a_disk_must_not_be_full() {
        let write = |kind| to(&mut Failing(kind), STANDARD_OUTPUT, |out| writeln!(out, "text"));
        assert!(write(ErrorKind::BrokenPipe).is_ok());
        let full = write(ErrorKind::StorageFull).unwrap_err().to_string();
        assert!(full.starts_with("cannot write standard output: "), "{full}");
    }
}
