//! Tables of texts, with commas (RFC 4180) or tabs between the cells.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::rc::Rc;

use serde_json::{Map, Value};

use crate::json_lines::LONGEST_LINE;
use crate::records::Records;
use crate::{Error, Result};

/// The rows below the line that names the columns, as objects of texts.
///
/// # Errors
/// The first line cannot be read, or names a column twice. Reading fails on a row of more than 64 MiB.
pub(crate) fn records(text: Box<dyn BufRead>, path: &Path, delimiter: u8) -> Result<Records> {
    let left = Rc::new(Cell::new(LONGEST_LINE));
    let text = Rows { text, left: Rc::clone(&left) };
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text);
    let mut names: Vec<String> =
        reader.headers().map_err(malformed(path))?.iter().map(str::to_owned).collect();
    if let Some(first) = names.first_mut() {
        // Spreadsheets write a byte order mark.
        *first = first.trim_start_matches('\u{feff}').to_owned();
    }
    let mut seen = HashSet::new();
    if let Some(column) = names.iter().find(|&name| !seen.insert(name)) {
        return Err(Error::AmbiguousColumn { path: path.to_owned(), column: column.clone() });
    }
    let path = path.to_owned();
    Ok(Box::new(reader.into_records().map(move |record| {
        left.set(LONGEST_LINE);
        let record = record.map_err(malformed(&path))?;
        let line = record.position().map_or(0, |position| position.line() as usize);
        let cells = record.iter().map(Value::from);
        Ok((line, Value::Object(names.iter().cloned().zip(cells).collect::<Map<_, _>>())))
    })))
}

/// Fails where a row is longer than a line may be: the reader of rows keeps all of it, and where each cell
/// ends.
struct Rows {
    text: Box<dyn BufRead>,
    /// What may still come before the row has to end.
    left: Rc<Cell<usize>>,
}

impl Read for Rows {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.text.read(buffer)?;
        let too_long = || io::Error::other(format!("a row is longer than {} MiB", LONGEST_LINE >> 20));
        self.left.set(self.left.get().checked_sub(read).ok_or_else(too_long)?);
        Ok(read)
    }
}

fn malformed(path: &Path) -> impl Fn(csv::Error) -> Error {
    let path = path.to_owned();
    move |error| match error.into_kind() {
        csv::ErrorKind::Io(error) => calm_files::Error::read(&path)(error).into(),
        kind => {
            let (line, message) = match &kind {
                csv::ErrorKind::Utf8 { pos, .. } => (pos.as_ref(), "the text is not UTF-8".to_owned()),
                csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
                    (pos.as_ref(), format!("{len} cells, but the first line has {expected_len}"))
                }
                other => (None, format!("{other:?}")),
            };
            let line = line.map_or(1, |position| position.line() as usize);
            Error::Malformed { path: path.clone(), line, column: None, message }
        }
    }
}
