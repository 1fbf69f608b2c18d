//! The records of a dataset's file, whatever its format.

use crate::json_value::JsonValue;
use crate::parquet_file::ParquetFile;
use crate::text::{open_text, read_text};
use crate::{Error, JsonLines, Result, json_document};
use serde_json::Value;
use std::path::Path;

/// Records, each with the number of its line or of its place among the records, counted from 1.
pub(crate) type Records = Box<dyn Iterator<Item = Result<(usize, Value)>>>;

/// Format of a file of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordFormat {
    Parquet,
    JsonLines,
    Json,
}

impl RecordFormat {
    /// Finds the format that the ending of a name tells.
    pub(crate) fn of_name(path: &Path) -> Option<RecordFormat> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let (stem, is_gzip) = name.strip_suffix(".gz").map_or((&*name, false), |stem| (stem, true));
        match (stem.rsplit_once('.')?.1, is_gzip) {
            ("parquet", false) => Some(RecordFormat::Parquet),
            ("jsonl", _) => Some(RecordFormat::JsonLines),
            ("json", _) => Some(RecordFormat::Json),
            _ => None,
        }
    }

    /// Opens a file of this format.
    ///
    /// `columns` is told whether there is a column `id`, and returns the columns that are needed, for formats
    /// that can leave columns unread.
    pub(crate) fn open<'c>(self, path: &Path, columns: impl FnOnce(bool) -> Vec<&'c str>) -> Result<Records> {
        Ok(match self {
            RecordFormat::Parquet => {
                let file = ParquetFile::open(path)?;
                let has_id = file.has_column("id");
                Box::new(file.records(&columns(has_id))?)
            }
            RecordFormat::JsonLines => {
                let lines = JsonLines::<_, JsonValue>::new(open_text(path)?, path);
                Box::new(lines.map(|record| record.map(|(line, JsonValue(value))| (line, value))))
            }
            RecordFormat::Json => {
                let records = json_document::parse(&read_text(path)?, path)?;
                Box::new((1..).zip(records).map(Ok))
            }
        })
    }
}

/// Opens a file in the format that its name's ending tells; see [`RecordFormat::open`].
pub(crate) fn open<'c>(path: &Path, columns: impl FnOnce(bool) -> Vec<&'c str>) -> Result<Records> {
    let format = RecordFormat::of_name(path).ok_or_else(|| Error::UnknownFormat { path: path.to_owned() })?;
    format.open(path, columns)
}
