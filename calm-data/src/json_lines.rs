use crate::{Error, Result};
use serde::de::DeserializeOwned;
use std::io::{BufRead, Read};
use std::marker::PhantomData;
use std::path::PathBuf;

/// Length in bytes of the longest line that is read.
///
/// A few hundred kilobytes of compressed text can stand for a line that fills the memory.
pub(crate) const LONGEST_LINE: usize = 64 << 20;

/// Reads JSON Lines (<https://jsonlines.org>) as a stream.
///
/// Every line gives one `T`, together with the number of the line, counted from 1.
///
/// Lines of white space are skipped, and so is a byte order mark at the start. After a malformed line the
/// next call goes on with the line after it; after a reading error, and after a line of more than 64 MiB, the
/// stream is over.
///
/// ```
/// #[derive(serde::Deserialize)]
/// struct Input {
///     source: String,
/// }
/// let lines = "{\"source\": \"one\"}\n\n{\"source\": 2}\n".as_bytes();
/// let mut inputs = calm_data::JsonLines::<_, Input>::new(lines, "standard input");
/// assert!(matches!(inputs.next(), Some(Ok((1, input))) if input.source == "one"));
/// let error = inputs.next().unwrap().err().unwrap();
/// assert_eq!(error.to_string(), "standard input:3:12: invalid type: integer `2`, expected a string");
/// assert!(inputs.next().is_none());
/// ```
pub struct JsonLines<R, T> {
    reader: R,
    /// Name of the stream in errors.
    name: PathBuf,
    line: usize,
    buffer: Vec<u8>,
    failed: bool,
    item: PhantomData<fn() -> T>,
}

impl<R: BufRead, T: DeserializeOwned> JsonLines<R, T> {
    /// Reads from `reader`; errors use `name` for it.
    pub fn new(reader: R, name: impl Into<PathBuf>) -> JsonLines<R, T> {
        JsonLines { reader, name: name.into(), line: 0, buffer: Vec::new(), failed: false, item: PhantomData }
    }

    fn parse(&self) -> Result<T> {
        serde_json::from_slice(&self.buffer)
            .map_err(|error| Error::malformed_json(&self.name, self.line, &error))
    }
}

/// Removes the mark that some editors and spreadsheets put in front of UTF-8, and that JSON does not allow.
pub(crate) fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
}

impl<R: BufRead, T: DeserializeOwned> Iterator for JsonLines<R, T> {
    type Item = Result<(usize, T)>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            self.buffer.clear();
            let mut reader = self.reader.by_ref().take(LONGEST_LINE as u64 + 1);
            match reader.read_until(b'\n', &mut self.buffer) {
                Ok(0) => return None,
                Ok(_) => self.line += 1,
                Err(source) => {
                    self.failed = true;
                    return Some(Err(calm_files::Error::read(&self.name)(source).into()));
                }
            }
            if self.buffer.len() > LONGEST_LINE {
                self.failed = true;
                let message = format!("the line is longer than {} MiB", LONGEST_LINE >> 20);
                let (path, line) = (self.name.clone(), self.line);
                return Some(Err(Error::Malformed { path, line, column: None, message }));
            }
            if self.line == 1 {
                let mark = self.buffer.len() - without_byte_order_mark(&self.buffer).len();
                self.buffer.drain(..mark);
            }
            // Without its line break, a line that is cut off gives an error inside the line, not at the start
            // of the next one.
            self.buffer.truncate(self.buffer.trim_ascii_end().len());
            if !self.buffer.is_empty() {
                return Some(self.parse().map(|item| (self.line, item)));
            }
        }
        None
    }
}
