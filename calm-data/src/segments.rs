//! What metrics compare: the texts of each segment of a file.

use crate::example::{Record, find};
use crate::records::{Needed, RecordFormat, Records};
use crate::text::{lines, read_text};
use crate::{Result, json_document};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The segments of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// The texts of each segment: one for a line of text, or for a string; any number for a list of strings.
    pub texts: Vec<Vec<String>>,
    /// How the texts were found.
    pub format: SegmentFormat,
}

/// How the segments of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentFormat {
    /// A segment is a line of text.
    Lines,
    /// A segment is a line of text, though each line could be a record too. None has the column.
    LinesOfJson,
    /// A segment is a column of a record.
    Records,
}

/// Reads a file of segments: records as [`read_examples`](crate::read_examples) reads them, or text with a
/// segment a line.
///
/// The name tells that a file has records, if it ends as those of datasets do. Of any other file the content
/// decides: it has records if all of it is JSON objects of which one has the column, or if it is Parquet.
/// Either may be compressed by gzip or zstd.
///
/// # Errors
/// Fails if the file cannot be read or is malformed, and if a record lacks the column or holds something else
/// in it than a string or a list of strings.
pub fn read_segments(path: &Path, column: &str) -> Result<Segments> {
    let format = RecordFormat::of_name(path);
    if let Some(format) = format.or_else(|| is_parquet(path).then_some(RecordFormat::Parquet)) {
        let records = format.open(path, Needed::Columns(&[column]))?;
        return from_records(records, path, column);
    }
    let text = read_text(path)?;
    let records = json_document::parse(&text, path).unwrap_or_default();
    if records.is_empty() || !records.iter().all(serde_json::Value::is_object) {
        return Ok(Segments { texts: one_each(lines(&text, path)?), format: SegmentFormat::Lines });
    }
    if !records.iter().any(|record| find(record, column).is_some()) {
        return Ok(Segments { texts: one_each(lines(&text, path)?), format: SegmentFormat::LinesOfJson });
    }
    from_records(Box::new((1..).zip(records).map(Ok)), path, column)
}

fn one_each(lines: Vec<String>) -> Vec<Vec<String>> {
    lines.into_iter().map(|line| vec![line]).collect()
}

fn from_records(records: Records, path: &Path, column: &str) -> Result<Segments> {
    let texts = records.map(|record| {
        let (line, value) = record?;
        let texts = Record { path, line, number: line, value: &value }.texts(column)?;
        Ok(texts.into_iter().map(str::to_owned).collect())
    });
    Ok(Segments { texts: texts.collect::<Result<_>>()?, format: SegmentFormat::Records })
}

/// Whether a file that can be read from any place begins as Parquet does.
fn is_parquet(path: &Path) -> bool {
    let mut start = [0; 4];
    let is_file = std::fs::metadata(path).is_ok_and(|file| file.is_file());
    is_file && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"PAR1"
}
