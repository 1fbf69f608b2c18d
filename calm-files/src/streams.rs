//! Standard output and standard error, which may be closed, full, or read by somebody who has seen enough.

use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

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

/// Tells the user something on standard error, on a line of its own. Work does not stop because nobody can be
/// told.
pub fn tell(line: impl Display) {
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
