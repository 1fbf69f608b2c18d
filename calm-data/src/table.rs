//! The table every bundled dataset is stored as: four string columns in a Parquet file.

use crate::{Error, Result};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// One line of a bundled dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Stable and unique within the task.
    pub id: String,
    /// The source package the text comes from; splits are made by it.
    pub package: String,
    /// The model's input, task prefix included.
    pub source: String,
    /// The text the model should write.
    pub target: String,
}

const SCHEMA: &str = "message examples {
    required binary id (string);
    required binary package (string);
    required binary source (string);
    required binary target (string);
}";
const COLUMNS: [fn(&Row) -> &str; 4] = [|r| &r.id, |r| &r.package, |r| &r.source, |r| &r.target];

/// Writes `rows` in their order as one zstd-compressed row group. The same rows give the same bytes.
pub fn write_parquet(path: &Path, rows: &[Row]) -> Result<()> {
    let fails = Error::parquet(path);
    let level = ZstdLevel::try_new(19).map_err(&fails)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let schema = Arc::new(parse_message_type(SCHEMA).map_err(&fails)?);
    let file = File::create(path).map_err(Error::io(path))?;
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).map_err(&fails)?;
    let mut group = writer.next_row_group().map_err(&fails)?;
    for value_of in COLUMNS {
        let values: Vec<ByteArray> = rows.iter().map(|row| ByteArray::from(value_of(row))).collect();
        if let Some(mut column) = group.next_column().map_err(&fails)? {
            column.typed::<ByteArrayType>().write_batch(&values, None, None).map_err(&fails)?;
            column.close().map_err(&fails)?;
        }
    }
    group.close().map_err(&fails)?;
    writer.close().map_err(&fails)?;
    Ok(())
}
