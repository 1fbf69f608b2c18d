//! Tables of texts, with commas (RFC 4180) or tabs between the cells.

use std::io::BufRead;
use std::path::Path;

use serde_json::{Map, Value};

use crate::records::Records;
use crate::{Error, Result};

/// The rows below the line that names the columns, as objects of texts.
///
/// # Errors
/// The first line cannot be read, or names a column twice.
pub(crate) fn records(text: Box<dyn BufRead>, path: &Path, delimiter: u8) -> Result<Records> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text);
    let mut names: Vec<String> =
        reader.headers().map_err(malformed(path))?.iter().map(str::to_owned).collect();
    if let Some(first) = names.first_mut() {
        // Spreadsheets write a byte order mark.
        *first = first.trim_start_matches('\u{feff}').to_owned();
    }
    if let Some(index) = (1..names.len()).find(|&index| names[..index].contains(&names[index])) {
        return Err(Error::AmbiguousColumn { path: path.to_owned(), column: names[index].clone() });
    }
    let path = path.to_owned();
    Ok(Box::new(reader.into_records().map(move |record| {
        let record = record.map_err(malformed(&path))?;
        let line = record.position().map_or(0, |position| position.line() as usize);
        let cells = record.iter().map(Value::from);
        Ok((line, Value::Object(names.iter().cloned().zip(cells).collect::<Map<_, _>>())))
    })))
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
