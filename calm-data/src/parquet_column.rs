//! The values of a Parquet file's column, as JSON.

use calm_parquet::guarded;
use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::page::PageReader;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{
    AsBytes, BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArray,
    FixedLenByteArrayType, FloatType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor};
use serde_json::Value;

/// What a column stores that can be read: text, or what JSON has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CellType {
    Bool,
    Int32,
    UInt32,
    Int64,
    UInt64,
    Float,
    Double,
    Text,
    /// Texts of one length.
    FixedText,
}

impl CellType {
    /// Finds how to read a column. Fails, with what it holds, if that is nothing that JSON has.
    pub(crate) fn of(column: &ColumnDescriptor) -> Result<CellType, &'static str> {
        if let Some(other) = not_in_json(column) {
            return Err(other);
        }
        let is_unsigned = match column.logical_type_ref() {
            Some(LogicalType::Integer(integer)) => !integer.is_signed,
            _ => matches!(
                column.converted_type(),
                ConvertedType::UINT_8
                    | ConvertedType::UINT_16
                    | ConvertedType::UINT_32
                    | ConvertedType::UINT_64
            ),
        };
        Ok(match column.physical_type() {
            Type::BOOLEAN => CellType::Bool,
            Type::INT32 if is_unsigned => CellType::UInt32,
            Type::INT32 => CellType::Int32,
            Type::INT64 if is_unsigned => CellType::UInt64,
            Type::INT64 => CellType::Int64,
            // The only use of this type.
            Type::INT96 => return Err("timestamps"),
            Type::FLOAT => CellType::Float,
            Type::DOUBLE => CellType::Double,
            // Some writers omit the annotation that marks bytes as a string.
            Type::BYTE_ARRAY => CellType::Text,
            Type::FIXED_LEN_BYTE_ARRAY => CellType::FixedText,
        })
    }
}

fn not_in_json(column: &ColumnDescriptor) -> Option<&'static str> {
    match column.logical_type_ref() {
        Some(LogicalType::Date) => return Some("dates"),
        Some(LogicalType::Time(_)) => return Some("times"),
        Some(LogicalType::Timestamp(_)) => return Some("timestamps"),
        Some(LogicalType::Decimal(_)) => return Some("decimal numbers"),
        Some(LogicalType::Float16) => return Some("16-bit floats"),
        Some(LogicalType::Uuid) => return Some("UUIDs"),
        Some(LogicalType::Bson) => return Some("BSON"),
        Some(
            LogicalType::String
            | LogicalType::Enum
            | LogicalType::Json
            | LogicalType::Integer(_)
            // What pyarrow writes for a column of nulls.
            | LogicalType::Unknown,
        )
        | None => {}
        Some(_) => return Some("values of a special type"),
    }
    match column.converted_type() {
        ConvertedType::DATE => Some("dates"),
        ConvertedType::TIME_MILLIS | ConvertedType::TIME_MICROS => Some("times"),
        ConvertedType::TIMESTAMP_MILLIS | ConvertedType::TIMESTAMP_MICROS => Some("timestamps"),
        ConvertedType::DECIMAL => Some("decimal numbers"),
        ConvertedType::INTERVAL => Some("intervals"),
        ConvertedType::BSON => Some("BSON"),
        _ => None,
    }
}

/// Why cells cannot be read.
#[derive(Debug)]
pub(crate) enum Fault {
    File(ParquetError),
    /// The cell with this index in the batch holds bytes that are not UTF-8.
    NotUtf8(usize),
}

/// A column of a row group, from which records are read a batch at a time.
pub(crate) trait ReadCells {
    /// Reads the cells of the next `rows` records. A list is an array.
    fn read(&mut self, rows: usize) -> Result<Vec<Value>, Fault>;
}

/// Opens a column of a row group.
///
/// `list_level` is the definition level from which on a list has an element; `None` if there is no list.
pub(crate) fn cells(
    column: ColumnDescPtr,
    pages: Box<dyn PageReader>,
    cell_type: CellType,
    list_level: Option<i16>,
) -> Box<dyn ReadCells> {
    let chunk = Chunk { column, pages, list_level };
    match cell_type {
        CellType::Bool => chunk.cells::<BoolType>(|&value| Some(value.into())),
        CellType::Int32 => chunk.cells::<Int32Type>(|&value| Some(value.into())),
        CellType::UInt32 => chunk.cells::<Int32Type>(|value| Some(value.cast_unsigned().into())),
        CellType::Int64 => chunk.cells::<Int64Type>(|&value| Some(value.into())),
        CellType::UInt64 => chunk.cells::<Int64Type>(|value| Some(value.cast_unsigned().into())),
        CellType::Float => chunk.cells::<FloatType>(|&value| Some(value.into())),
        CellType::Double => chunk.cells::<DoubleType>(|&value| Some(value.into())),
        CellType::Text => chunk.cells::<ByteArrayType>(|value: &ByteArray| text(value.data())),
        CellType::FixedText => {
            chunk.cells::<FixedLenByteArrayType>(|value: &FixedLenByteArray| text(value.as_bytes()))
        }
    }
}

fn text(bytes: &[u8]) -> Option<Value> {
    std::str::from_utf8(bytes).ok().map(Value::from)
}

/// A column of a row group before its type is known to the compiler.
struct Chunk {
    column: ColumnDescPtr,
    pages: Box<dyn PageReader>,
    list_level: Option<i16>,
}

impl Chunk {
    fn cells<T: DataType>(self, convert: fn(&T::T) -> Option<Value>) -> Box<dyn ReadCells> {
        Box::new(Cells::<T> {
            full_level: self.column.max_def_level(),
            list_level: self.list_level,
            reader: ColumnReaderImpl::new(self.column, self.pages),
            convert,
        })
    }
}

struct Cells<T: DataType> {
    reader: ColumnReaderImpl<T>,
    /// Definition level of a value that is not null.
    full_level: i16,
    list_level: Option<i16>,
    /// Makes JSON of a value, but not of bytes that are not UTF-8.
    convert: fn(&T::T) -> Option<Value>,
}

impl<T: DataType> ReadCells for Cells<T> {
    fn read(&mut self, rows: usize) -> Result<Vec<Value>, Fault> {
        let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
        let (records, _, levels) = guarded(|| {
            self.reader.read_records(rows, Some(&mut definitions), Some(&mut repetitions), &mut values)
        })
        .map_err(Fault::File)?;
        if records < rows {
            let message = "the file is damaged: a column has fewer rows than its row group";
            return Err(Fault::File(ParquetError::General(message.to_owned())));
        }
        let mut values = values.iter();
        let mut cells: Vec<Value> = Vec::with_capacity(rows);
        for index in 0..levels {
            // Without levels there is a value everywhere.
            let definition = definitions.get(index).copied().unwrap_or(self.full_level);
            let begins = repetitions.get(index).is_none_or(|&level| level == 0);
            let number = cells.len() - usize::from(!begins && !cells.is_empty());
            let value = if definition < self.full_level {
                Value::Null
            } else {
                let value = values.next().and_then(self.convert);
                value.ok_or(Fault::NotUtf8(number))?
            };
            match (self.list_level, cells.last_mut()) {
                (None, _) => cells.push(value),
                (Some(_), Some(Value::Array(items))) if !begins => items.push(value),
                (Some(level), _) if definition >= level => cells.push(Value::Array(vec![value])),
                (Some(level), _) if definition == level - 1 => cells.push(Value::Array(Vec::new())),
                // The list itself is null, or a struct around it.
                (Some(_), _) => cells.push(Value::Null),
            }
        }
        Ok(cells)
    }
}
