//! Reads columns of a row group as the values that a calibration needs, whatever type they are stored as.

use std::path::Path;

use calm_parquet::guarded;
use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::page::PageReader;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor};

use super::error::{LossFileError, Place};
use super::rows::ExampleId;

/// How a column of numbers is stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum NumberType {
    Double,
    Float,
    Int32,
    Int64,
    Boolean,
}

impl NumberType {
    pub(super) const OF_THRESHOLDS: &'static str = "DOUBLE, FLOAT, INT32 or INT64";
    pub(super) const OF_LOSSES: &'static str = "DOUBLE, FLOAT, INT32, INT64 or BOOLEAN";

    pub(super) fn of_threshold(column: &ColumnDescriptor) -> Option<Self> {
        Self::of_loss(column).filter(|number_type| !matches!(number_type, Self::Boolean))
    }

    pub(super) fn of_loss(column: &ColumnDescriptor) -> Option<Self> {
        match column.physical_type() {
            _ if column.max_rep_level() > 0 => None,
            Type::DOUBLE => Some(Self::Double),
            Type::FLOAT => Some(Self::Float),
            Type::INT32 if is_integer(column) => Some(Self::Int32),
            Type::INT64 if is_integer(column) => Some(Self::Int64),
            Type::BOOLEAN => Some(Self::Boolean),
            _ => None,
        }
    }
}

/// How the examples' names are stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum ExampleType {
    Int32,
    Int64,
    UInt32,
    UInt64,
    Text,
}

impl ExampleType {
    pub(super) const EXPECTED: &'static str = "an integer or a string";

    pub(super) fn of(column: &ColumnDescriptor) -> Option<Self> {
        let is_unsigned = matches!(column.converted_type(), ConvertedType::UINT_32 | ConvertedType::UINT_64);
        match column.physical_type() {
            _ if column.max_rep_level() > 0 => None,
            Type::INT32 if is_integer(column) && is_unsigned => Some(Self::UInt32),
            Type::INT64 if is_integer(column) && is_unsigned => Some(Self::UInt64),
            Type::INT32 if is_integer(column) => Some(Self::Int32),
            Type::INT64 if is_integer(column) => Some(Self::Int64),
            // Some writers omit the annotation that marks bytes as a string.
            Type::BYTE_ARRAY if column.converted_type() != ConvertedType::DECIMAL => Some(Self::Text),
            _ => None,
        }
    }

    /// Whether numbers of this type are all `i64`.
    pub(super) fn is_i64(self) -> bool {
        matches!(self, Self::Int32 | Self::Int64 | Self::UInt32)
    }
}

/// Whether a column holds integers, and not dates, times or decimals that are stored as such.
fn is_integer(column: &ColumnDescriptor) -> bool {
    matches!(column.logical_type_ref(), None | Some(LogicalType::Integer(_)))
        && !matches!(
            column.converted_type(),
            ConvertedType::DECIMAL
                | ConvertedType::DATE
                | ConvertedType::TIME_MILLIS
                | ConvertedType::TIME_MICROS
                | ConvertedType::TIMESTAMP_MILLIS
                | ConvertedType::TIMESTAMP_MICROS
        )
}

/// A column of a row group before its type is known to the compiler.
pub(super) struct ChunkReader {
    pub(super) column: ColumnDescPtr,
    pub(super) pages: Box<dyn PageReader>,
}

/// The values of a column, a batch at a time.
pub(super) trait ReadCells<V> {
    /// Replaces the contents of `values` by the next `rows` values.
    fn read(&mut self, rows: usize, values: &mut Vec<V>) -> Result<(), Fault>;
}

/// Why cells cannot be read.
#[derive(Debug)]
pub(super) enum Fault {
    File(ParquetError),
    /// A cell is wrong: its index in the batch, and what is wrong with it.
    Cell(usize, String),
}

impl Fault {
    /// Makes an error for the file `path`, in a batch that begins at row `first_row`.
    pub(super) fn at(self, path: &Path, first_row: u64, column: &'static str) -> LossFileError {
        match self {
            Fault::File(error) => LossFileError::parquet(path)(error),
            Fault::Cell(index, message) => {
                let place = Place::Row(first_row + index as u64);
                LossFileError::Cell { path: path.to_owned(), place, column, message }
            }
        }
    }
}

/// Cells of the type in which they are needed, which are decoded in place.
struct Plain<T: DataType> {
    reader: ColumnReaderImpl<T>,
    /// Levels of an optional column: 1 where there is a value, 0 where there is none. Other columns have no
    /// levels.
    levels: Vec<i16>,
}

impl<T: DataType> Plain<T> {
    fn new(chunk: ChunkReader) -> Self {
        Self { reader: ColumnReaderImpl::new(chunk.column, chunk.pages), levels: Vec::new() }
    }
}

impl<T: DataType> ReadCells<T::T> for Plain<T> {
    fn read(&mut self, rows: usize, values: &mut Vec<T::T>) -> Result<(), Fault> {
        values.clear();
        self.levels.clear();
        let (reader, levels) = (&mut self.reader, &mut self.levels);
        let (found, filled, _) =
            guarded(|| reader.read_records(rows, Some(levels), None, values)).map_err(Fault::File)?;
        if found < rows {
            return Err(Fault::File(ParquetError::EOF("a column has fewer rows than its row group".into())));
        }
        if filled < rows {
            let null = self.levels.iter().position(|&level| level == 0).unwrap_or(filled);
            return Err(Fault::Cell(null, "the cell is null".into()));
        }
        Ok(())
    }
}

/// Cells of another type.
///
/// `convert` writes over a value of an earlier batch, so that the memory of a text is used again.
struct Converted<T: DataType, F> {
    cells: Plain<T>,
    stored: Vec<T::T>,
    convert: F,
}

impl<T: DataType, V: Clone + Default, F: FnMut(&T::T, &mut V) -> Result<(), String>> ReadCells<V>
    for Converted<T, F>
{
    fn read(&mut self, rows: usize, values: &mut Vec<V>) -> Result<(), Fault> {
        self.cells.read(rows, &mut self.stored)?;
        values.resize(rows, V::default());
        for (index, (stored, value)) in self.stored.iter().zip(values).enumerate() {
            (self.convert)(stored, value).map_err(|message| Fault::Cell(index, message))?;
        }
        Ok(())
    }
}

fn converted<T: DataType, V: Clone + Default + 'static>(
    chunk: ChunkReader,
    mut convert: impl FnMut(&T::T) -> V + 'static,
) -> Box<dyn ReadCells<V>> {
    let convert = move |stored: &T::T, value: &mut V| {
        *value = convert(stored);
        Ok(())
    };
    Box::new(Converted { cells: Plain::<T>::new(chunk), stored: Vec::new(), convert })
}

pub(super) fn threshold_cells(chunk: ChunkReader, number_type: NumberType) -> Box<dyn ReadCells<f64>> {
    match number_type {
        NumberType::Float => {
            // Most rows follow another one of the same threshold.
            let mut last = (0.0, 0.0);
            converted::<FloatType, _>(chunk, move |&stored| {
                if stored != last.0 {
                    last = (stored, shortest_decimal(stored));
                }
                last.1
            })
        }
        _ => loss_cells(chunk, number_type),
    }
}

/// Finds the number that was meant: `0.9_f32` is 0.9 and not 0.8999999761581421.
fn shortest_decimal(stored: f32) -> f64 {
    stored.to_string().parse().unwrap_or(f64::from(stored))
}

pub(super) fn loss_cells(chunk: ChunkReader, number_type: NumberType) -> Box<dyn ReadCells<f64>> {
    match number_type {
        NumberType::Double => Box::new(Plain::<DoubleType>::new(chunk)),
        NumberType::Float => converted::<FloatType, _>(chunk, |&stored| f64::from(stored)),
        NumberType::Int32 => converted::<Int32Type, _>(chunk, |&stored| f64::from(stored)),
        NumberType::Int64 => converted::<Int64Type, _>(chunk, |&stored| stored as f64),
        NumberType::Boolean => converted::<BoolType, _>(chunk, |&stored| f64::from(u8::from(stored))),
    }
}

/// A type that the examples' names are read as: `i64` if [`ExampleType::is_i64`] is true, else text.
pub(super) trait ParquetExample: ExampleId {
    fn cells(chunk: ChunkReader, example_type: ExampleType) -> Box<dyn ReadCells<Self>>;
}

impl ParquetExample for i64 {
    fn cells(chunk: ChunkReader, example_type: ExampleType) -> Box<dyn ReadCells<Self>> {
        match example_type {
            ExampleType::Int32 => converted::<Int32Type, _>(chunk, |&stored| i64::from(stored)),
            ExampleType::UInt32 => {
                converted::<Int32Type, _>(chunk, |&stored| i64::from(stored.cast_unsigned()))
            }
            _ => Box::new(Plain::<Int64Type>::new(chunk)),
        }
    }
}

impl ParquetExample for String {
    fn cells(chunk: ChunkReader, example_type: ExampleType) -> Box<dyn ReadCells<Self>> {
        match example_type {
            ExampleType::UInt64 => {
                converted::<Int64Type, _>(chunk, |stored| stored.cast_unsigned().to_string())
            }
            _ => {
                let convert = |stored: &ByteArray, value: &mut String| {
                    let text = std::str::from_utf8(stored.data());
                    let text = text.map_err(|error| format!("the text is not UTF-8: {error}"))?;
                    text.clone_into(value);
                    Ok(())
                };
                let cells = Plain::<ByteArrayType>::new(chunk);
                Box::new(Converted { cells, stored: Vec::new(), convert })
            }
        }
    }
}
