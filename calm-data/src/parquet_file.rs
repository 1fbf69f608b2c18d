//! Parquet files: the table that every bundled dataset is stored as, and records of any other schema.

use crate::parquet_column::{CellType, Fault, ReadCells, cells};
use crate::{Error, Result};
use parquet::basic::{Compression, ConvertedType, LogicalType, Repetition, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::Type;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::File;
use std::path::{Path, PathBuf};
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
///
/// # Errors
/// The file cannot be written.
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
///
/// # Errors
/// The file cannot be read, is no Parquet file, or lacks one of the columns.
pub fn read_rows(path: &Path) -> Result<Vec<Row>> {
    let file = ParquetFile::open(path)?;
    let columns = ["id", "package", "source", "target"];
    let row = |record: Result<(usize, Value)>| {
        let (number, value) = record?;
        serde_json::from_value(value).map_err(|e| Error::Malformed {
            path: path.to_owned(),
            line: number,
            column: None,
            message: e.to_string(),
        })
    };
    file.records(&columns)?.map(row).collect()
}

/// Number of records that are decoded at a time.
const BATCH: usize = 1024;

/// An open Parquet file with any schema.
pub(crate) struct ParquetFile {
    path: PathBuf,
    file: calm_parquet::ParquetFile,
    columns: Vec<Column>,
}

/// What a name stands for.
struct Column {
    /// Name of the column. A field of a struct is `STRUCT.FIELD`, a list is one column.
    name: String,
    /// Index of the first leaf of the schema that it is made of, and their number.
    leaf: usize,
    leaves: usize,
    /// Definition level from which on a list has an element, if there is a list.
    list_level: Option<i16>,
    is_map: bool,
}

impl ParquetFile {
    pub(crate) fn open(path: &Path) -> Result<ParquetFile> {
        let file = File::open(path).map_err(calm_files::Error::read(path))?;
        let file = calm_parquet::ParquetFile::open(path, file).map_err(Error::parquet(path))?;
        let mut columns = Vec::new();
        let levels = Levels { definition: 0, list: None };
        for field in file.metadata().file_metadata().schema().get_fields() {
            add_columns("", field, levels, &mut columns);
        }
        Ok(ParquetFile { path: path.to_owned(), file, columns })
    }

    pub(crate) fn has_column(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name == name)
    }

    /// Names of the columns that hold what JSON has, each of which is there once.
    pub(crate) fn readable_columns(&self) -> Vec<String> {
        let names = self.columns.iter().map(|column| column.name.clone());
        names.filter(|name| self.select(name).is_ok()).collect()
    }

    /// Reads all records, numbered from 1, as objects in which `columns` are the keys.
    ///
    /// All of `columns` must exist, and hold what JSON has: text, numbers, or lists of these.
    pub(crate) fn records(self, columns: &[&str]) -> Result<Records> {
        let mut columns: Vec<Selected> =
            columns.iter().map(|name| self.select(name)).collect::<Result<_>>()?;
        columns.sort_by_key(|column| column.leaf);
        columns.dedup_by_key(|column| column.leaf);
        Ok(Records {
            file: self,
            columns,
            next_group: 0,
            open: Vec::new(),
            rows_left: 0,
            batch: Vec::new(),
            read: 0,
            failed: false,
        })
    }

    fn select(&self, name: &str) -> Result<Selected> {
        let mut found = self.columns.iter().filter(|column| column.name == name);
        let (path, name) = (self.path.clone(), name.to_owned());
        let Some(column) = found.next() else {
            let available = self.columns.iter().map(|column| column.name.clone()).collect();
            return Err(Error::MissingColumn { path, line: None, column: name, available });
        };
        if found.next().is_some() {
            return Err(Error::AmbiguousColumn { path, column: name });
        }
        let descriptor = self.file.metadata().file_metadata().schema_descr().column(column.leaf);
        let cell_type = if column.is_map {
            Err("maps")
        } else if column.leaves > 1 {
            Err("lists of structs")
        } else if descriptor.max_rep_level() > 1 {
            Err("lists of lists")
        } else {
            CellType::of(&descriptor)
        };
        match cell_type {
            Ok(cell_type) => {
                Ok(Selected { name, leaf: column.leaf, list_level: column.list_level, cell_type })
            }
            Err(found) => Err(Error::ColumnType { path, column: name, found }),
        }
    }
}

/// A column that is read.
struct Selected {
    name: String,
    leaf: usize,
    list_level: Option<i16>,
    cell_type: CellType,
}

/// The records of a file, one after the other. A failure is the last item.
pub(crate) struct Records {
    file: ParquetFile,
    columns: Vec<Selected>,
    next_group: usize,
    /// The columns of the row group that is being read, and the number of its rows that were not.
    open: Vec<Box<dyn ReadCells>>,
    rows_left: usize,
    /// The cells of each column that were read, but not yet returned.
    batch: Vec<std::vec::IntoIter<Value>>,
    /// Records that were returned.
    read: usize,
    failed: bool,
}

impl Records {
    fn next_record(&mut self) -> Result<Option<(usize, Value)>> {
        while self.batch.iter().all(|cells| cells.len() == 0) {
            if self.rows_left > 0 {
                self.read_batch()?;
            } else if !self.open_group()? {
                return Ok(None);
            }
        }
        let names = self.columns.iter().map(|column| column.name.clone());
        let cells = self.batch.iter_mut().map(|cells| cells.next().unwrap_or_default());
        let record = names.zip(cells).collect::<Map<_, _>>();
        self.read += 1;
        Ok(Some((self.read, Value::Object(record))))
    }

    /// Opens the next row group; `false` if there is none.
    fn open_group(&mut self) -> Result<bool> {
        let (metadata, fails) = (self.file.file.metadata(), Error::parquet(&self.file.path));
        if self.next_group == metadata.num_row_groups() {
            return Ok(false);
        }
        let group = metadata.row_group(self.next_group);
        self.rows_left = usize::try_from(group.num_rows()).map_err(|error| fails(error.into()))?;
        let open = |column: &Selected| {
            let pages = self.file.file.pages(self.next_group, column.leaf).map_err(&fails)?;
            let descriptor = group.column(column.leaf).column_descr_ptr();
            Ok(cells(descriptor, pages, column.cell_type, column.list_level))
        };
        self.open = self.columns.iter().map(open).collect::<Result<_>>()?;
        self.next_group += 1;
        Ok(true)
    }

    fn read_batch(&mut self) -> Result<()> {
        let rows = self.rows_left.min(BATCH);
        self.rows_left -= rows;
        self.batch.clear();
        for (column, cells) in self.columns.iter().zip(&mut self.open) {
            let cells = cells.read(rows).map_err(|fault| match fault {
                Fault::File(error) => Error::parquet(&self.file.path)(error),
                Fault::NotUtf8(index) => Error::Malformed {
                    path: self.file.path.clone(),
                    line: self.read + index + 1,
                    column: None,
                    message: format!("column `{}` holds bytes that are not UTF-8 text", column.name),
                },
            })?;
            self.batch.push(cells.into_iter());
        }
        Ok(())
    }
}

impl Iterator for Records {
    type Item = Result<(usize, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let record = self.next_record();
        self.failed = record.is_err();
        record.transpose()
    }
}

/// Definition levels on the way to a field.
#[derive(Clone, Copy)]
struct Levels {
    definition: i16,
    /// Level from which on the innermost list has an element.
    list: Option<i16>,
}

impl Levels {
    fn within(mut self, field: &Type) -> Levels {
        match field.get_basic_info().repetition() {
            Repetition::REQUIRED => {}
            Repetition::OPTIONAL => self.definition += 1,
            Repetition::REPEATED => {
                self.definition += 1;
                self.list = Some(self.definition);
            }
        }
        self
    }
}

fn add_columns(prefix: &str, field: &Type, levels: Levels, columns: &mut Vec<Column>) {
    let name = format!("{prefix}{}", field.name());
    let info = field.get_basic_info();
    let has_type = |logical, converted: &[ConvertedType]| {
        info.logical_type_ref() == Some(&logical) || converted.contains(&info.converted_type())
    };
    let is_map = has_type(LogicalType::Map, &[ConvertedType::MAP, ConvertedType::MAP_KEY_VALUE]);
    if field.is_group() && !is_map && !has_type(LogicalType::List, &[ConvertedType::LIST]) {
        let levels = levels.within(field);
        for inner in field.get_fields() {
            add_columns(&format!("{name}."), inner, levels, columns);
        }
        return;
    }
    let leaf = columns.last().map_or(0, |last| last.leaf + last.leaves);
    columns.push(Column { name, leaf, leaves: leaves(field), list_level: list_level(field, levels), is_map });
}

fn leaves(field: &Type) -> usize {
    if field.is_group() { field.get_fields().iter().map(|field| leaves(field)).sum() } else { 1 }
}

/// Finds the definition level from which on the list on the way to the first leaf has an element.
fn list_level(field: &Type, levels: Levels) -> Option<i16> {
    let levels = levels.within(field);
    match field.is_group().then(|| field.get_fields().first()).flatten() {
        Some(inner) => list_level(inner, levels),
        None => levels.list,
    }
}
