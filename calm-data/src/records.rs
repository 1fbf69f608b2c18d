//! The records of a dataset's file, whatever its format.

use crate::json_value::JsonValue;
use crate::parquet_file::ParquetFile;
use crate::text::{open_text, read_text, without_compression};
use crate::{Error, JsonLines, Result, json_document, separated};
use serde_json::Value;
use std::path::Path;

/// Records, each with the number of its line or of its place among the records, counted from 1.
pub type Records = Box<dyn Iterator<Item = Result<(usize, Value)>>>;

/// Format of a file of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordFormat {
    Parquet,
    JsonLines,
    Json,
    /// A table of texts whose first line has the names of the columns.
    Separated(u8),
}

impl RecordFormat {
    /// Finds the format that the ending of a name tells.
    pub(crate) fn of_name(path: &Path) -> Option<RecordFormat> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let stem = without_compression(&name);
        match stem.rsplit_once('.')?.1 {
            "parquet" if stem == name => Some(RecordFormat::Parquet),
            "jsonl" => Some(RecordFormat::JsonLines),
            "json" => Some(RecordFormat::Json),
            "csv" => Some(RecordFormat::Separated(b',')),
            "tsv" => Some(RecordFormat::Separated(b'\t')),
            _ => None,
        }
    }

    /// Opens a file of this format.
    ///
    /// `needed` is what formats read that can leave columns unread.
    pub(crate) fn open(self, path: &Path, needed: Needed<'_>) -> Result<Records> {
        Ok(match self {
            RecordFormat::Parquet => {
                let file = ParquetFile::open(path)?;
                let columns = match needed {
                    Needed::Columns(columns) => columns.iter().map(|&column| column.to_owned()).collect(),
                    Needed::ColumnsAndId(columns) => {
                        let id = file.has_column("id").then_some("id");
                        id.into_iter().chain(columns.iter().copied()).map(str::to_owned).collect()
                    }
                    Needed::All => file.readable_columns(),
                };
                Box::new(file.records(&columns.iter().map(String::as_str).collect::<Vec<_>>())?)
            }
            RecordFormat::JsonLines => {
                let lines = JsonLines::<_, JsonValue>::new(open_text(path)?, path);
                Box::new(lines.map(|record| record.map(|(line, JsonValue(value))| (line, value))))
            }
            RecordFormat::Json => {
                let records = json_document::parse(&read_text(path)?, path)?;
                Box::new((1..).zip(records).map(Ok))
            }
            RecordFormat::Separated(delimiter) => separated::records(open_text(path)?, path, delimiter)?,
        })
    }
}

/// Which columns of a file are read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Needed<'c> {
    /// These, which have to be there.
    Columns(&'c [&'c str]),
    /// These, and the column `id` if there is one.
    ColumnsAndId(&'c [&'c str]),
    /// All that can be read.
    All,
}

/// Reads all records of a file with all of their columns, each with the number of its line, or of its place
/// among the records, from 1. The formats are those of [`read_examples`](crate::read_examples).
///
/// # Errors
/// Fails if the ending of the name tells no format, or the file cannot be opened. A record that cannot be
/// read is an error of its own.
pub fn read_records(path: &Path) -> Result<Records> {
    open(path, Needed::All)
}

/// Whether the records of a file are JSON objects, one a line: so are those of a file whose name tells no
/// other format.
pub fn has_lines_of_json(path: &Path) -> bool {
    matches!(RecordFormat::of_name(path), None | Some(RecordFormat::JsonLines))
}

/// Opens a file in the format that its name's ending tells; see [`RecordFormat::open`].
pub(crate) fn open(path: &Path, needed: Needed<'_>) -> Result<Records> {
    let format = RecordFormat::of_name(path).ok_or_else(|| Error::UnknownFormat { path: path.to_owned() })?;
    let is_bundled = path.parent().is_some_and(|folder| folder.ends_with("data/train"));
    if is_bundled && format == RecordFormat::Parquet && !path.exists() {
        return Err(Error::NotMade { path: path.to_owned() });
    }
    format.open(path, needed)
}
