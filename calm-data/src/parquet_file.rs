//! Parquet files: the table that every bundled dataset is stored as, and records of any other schema.

use crate::{Error, Result};
use parquet::basic::{Compression, ConvertedType, LogicalType, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::Field;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::Type;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// One row of a bundled dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the example, stable and unique within the task.
    pub id: String,
    /// The source package that the text comes from, by which the splits are divided.
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
const VALUES: [fn(&Row) -> &str; 4] = [|r| &r.id, |r| &r.package, |r| &r.source, |r| &r.target];

/// Writes `rows` in their order as one zstd-compressed row group. The same rows give the same bytes.
pub fn write_rows(path: &Path, rows: &[Row]) -> Result<()> {
    let fails = Error::parquet(path);
    let level = ZstdLevel::try_new(19).map_err(&fails)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let schema = Arc::new(parse_message_type(SCHEMA).map_err(&fails)?);
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).map_err(&fails)?;
    let mut group = writer.next_row_group().map_err(&fails)?;
    for value_of in VALUES {
        let values: Vec<ByteArray> = rows.iter().map(|row| ByteArray::from(value_of(row))).collect();
        if let Some(mut column) = group.next_column().map_err(&fails)? {
            column.typed::<ByteArrayType>().write_batch(&values, None, None).map_err(&fails)?;
            column.close().map_err(&fails)?;
        }
    }
    group.close().map_err(&fails)?;
    Ok(calm_files::write(path, writer.into_inner().map_err(&fails)?)?)
}

/// Reads a file that [`write_rows`] wrote, or any other Parquet file with these four string columns.
pub fn read_rows(path: &Path) -> Result<Vec<Row>> {
    let file = ParquetFile::open(path)?;
    let columns = ["id", "package", "source", "target"];
    let row = |(number, value)| {
        serde_json::from_value(value).map_err(|e| Error::Malformed {
            path: path.to_owned(),
            line: number,
            column: None,
            message: e.to_string(),
        })
    };
    file.records(&columns)?.into_iter().map(row).collect()
}

/// An open Parquet file with any schema.
pub(crate) struct ParquetFile<'a> {
    path: &'a Path,
    reader: SerializedFileReader<File>,
}

impl<'a> ParquetFile<'a> {
    pub(crate) fn open(path: &'a Path) -> Result<ParquetFile<'a>> {
        let file = File::open(path).map_err(calm_files::Error::read(path))?;
        let reader = SerializedFileReader::new(file).map_err(Error::parquet(path))?;
        Ok(ParquetFile { path, reader })
    }

    /// Names of the columns. A field of a struct is `STRUCT.FIELD`, a list is one column.
    pub(crate) fn columns(&self) -> Vec<String> {
        let mut names = Vec::new();
        for field in self.schema().get_fields() {
            add_names("", field, &mut names);
        }
        names
    }

    /// Reads all records, numbered from 1, with the top-level columns that contain `columns`.
    ///
    /// All of `columns` must exist.
    pub(crate) fn records(&self, columns: &[&str]) -> Result<Vec<(usize, Value)>> {
        let available = self.columns();
        if let Some(missing) = columns.iter().find(|column| !available.iter().any(|name| name == *column)) {
            return Err(Error::MissingColumn {
                path: self.path.to_owned(),
                line: None,
                column: (*missing).to_owned(),
                available,
            });
        }
        let fails = Error::parquet(self.path);
        let is_needed = |root: &str| {
            let within = format!("{root}.");
            columns.iter().any(|column| *column == root || column.starts_with(&within))
        };
        let schema = self.schema();
        let needed = schema.get_fields().iter().filter(|field| is_needed(field.name())).cloned().collect();
        let projection =
            Type::group_type_builder(schema.name()).with_fields(needed).build().map_err(&fails)?;
        let rows = self.reader.get_row_iter(Some(projection)).map_err(&fails)?;
        let record = |(index, row): (usize, parquet::errors::Result<parquet::record::Row>)| {
            let fields = row.map_err(&fails)?.into_columns();
            let object = fields.iter().map(|(name, field)| (name.clone(), json(field))).collect();
            Ok((index + 1, Value::Object(object)))
        };
        rows.enumerate().map(record).collect()
    }

    fn schema(&self) -> &Type {
        self.reader.metadata().file_metadata().schema()
    }
}

fn add_names(prefix: &str, field: &Type, names: &mut Vec<String>) {
    let name = format!("{prefix}{}", field.name());
    let info = field.get_basic_info();
    let is_collection = matches!(info.logical_type_ref(), Some(LogicalType::List | LogicalType::Map))
        || matches!(info.converted_type(), ConvertedType::LIST | ConvertedType::MAP);
    if field.is_group() && !is_collection {
        for inner in field.get_fields() {
            add_names(&format!("{name}."), inner, names);
        }
    } else {
        names.push(name);
    }
}

/// Turns a field into JSON, so that the records of both formats are read by the same code.
///
/// Dates, decimals and the like, which no text column holds, become what `Display` makes of them.
fn json(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => Value::from(*value),
        Field::Byte(value) => Value::from(*value),
        Field::Short(value) => Value::from(*value),
        Field::Int(value) => Value::from(*value),
        Field::Long(value) => Value::from(*value),
        Field::UByte(value) => Value::from(*value),
        Field::UShort(value) => Value::from(*value),
        Field::UInt(value) => Value::from(*value),
        Field::ULong(value) => Value::from(*value),
        Field::Float(value) => Value::from(*value),
        Field::Double(value) => Value::from(*value),
        Field::Str(value) => Value::from(value.as_str()),
        // Some writers omit the annotation that marks bytes as a string.
        Field::Bytes(value) => value.as_utf8().map_or(Value::Null, Value::from),
        Field::Group(row) => {
            Value::Object(row.get_column_iter().map(|(name, field)| (name.clone(), json(field))).collect())
        }
        Field::ListInternal(list) => Value::Array(list.elements().iter().map(json).collect()),
        other => Value::from(other.to_string()),
    }
}
