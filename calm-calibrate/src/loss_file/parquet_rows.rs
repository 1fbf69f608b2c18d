use std::fs::File;
use std::path::Path;

use calm_parquet::ParquetFile;
use parquet::basic::ConvertedType;
use parquet::schema::types::ColumnDescriptor;

use super::error::LossFileError;
use super::parquet_cells::{
    ChunkReader, ExampleType, NumberType, ParquetExample, ReadCells, loss_cells, threshold_cells,
};
use super::rows::{BATCH, Batch, Columns, EXAMPLE, LOSS, Part, Places, Source, THRESHOLD, column_index};

/// A Parquet file of losses, whose parts are the row groups.
pub(super) struct ParquetLosses<'a> {
    path: &'a Path,
    file: ParquetFile,
    threshold: (usize, NumberType),
    example: (usize, ExampleType),
    loss: (usize, NumberType),
    /// The number of rows before each row group.
    rows_before: Vec<u64>,
}

impl<'a> ParquetLosses<'a> {
    /// Reads the footer. Fails if a column is missing or of a type that does not suit it.
    pub(super) fn open(path: &'a Path) -> Result<Self, LossFileError> {
        let file = File::open(path).map_err(LossFileError::io(path))?;
        let file = ParquetFile::open(path, file).map_err(LossFileError::parquet(path))?;
        let metadata = file.metadata();
        let descriptors = metadata.file_metadata().schema_descr().columns();
        // Those of fields in a struct and of the elements of a list have several parts, with dots between
        // them.
        let names: Vec<String> = descriptors.iter().map(|column| column.path().string()).collect();
        let find = |column| column_index(path, &names, column);
        let mistyped = |column, index: usize, expected| LossFileError::ColumnType {
            path: path.to_owned(),
            column,
            found: type_name(&descriptors[index]),
            expected,
        };
        let threshold = find(THRESHOLD)?;
        let threshold_type = NumberType::of_threshold(&descriptors[threshold])
            .ok_or_else(|| mistyped(THRESHOLD, threshold, NumberType::OF_THRESHOLDS))?;
        let example = find(EXAMPLE)?;
        let example_type = ExampleType::of(&descriptors[example])
            .ok_or_else(|| mistyped(EXAMPLE, example, ExampleType::EXPECTED))?;
        let loss = find(LOSS)?;
        let loss_type = NumberType::of_loss(&descriptors[loss])
            .ok_or_else(|| mistyped(LOSS, loss, NumberType::OF_LOSSES))?;
        let mut rows = 0;
        let count = |group: &parquet::file::metadata::RowGroupMetaData| {
            rows += group.num_rows().unsigned_abs();
            rows - group.num_rows().unsigned_abs()
        };
        let rows_before = metadata.row_groups().iter().map(count).collect();
        Ok(Self {
            path,
            threshold: (threshold, threshold_type),
            example: (example, example_type),
            loss: (loss, loss_type),
            rows_before,
            file,
        })
    }

    /// Whether the examples' names are numbers; otherwise they are text.
    pub(super) fn has_i64_examples(&self) -> bool {
        self.example.1.is_i64()
    }
}

/// Names the physical type of a column, and what it stands for.
fn type_name(column: &ColumnDescriptor) -> String {
    let physical = column.physical_type();
    match (column.converted_type(), column.logical_type_ref()) {
        _ if column.max_rep_level() > 0 => format!("a list of {physical}"),
        (ConvertedType::NONE, None) => physical.to_string(),
        (ConvertedType::NONE, Some(logical)) => format!("{physical} ({logical:?})"),
        (converted, _) => format!("{physical} ({converted})"),
    }
}

impl<I: ParquetExample> Source<I> for ParquetLosses<'_> {
    fn parts(&self) -> usize {
        self.rows_before.len()
    }

    fn open(&self, part: usize, columns: Columns) -> Result<Box<dyn Part<I> + '_>, LossFileError> {
        let group = self.file.metadata().row_group(part);
        let rows = usize::try_from(group.num_rows())
            .map_err(|error| LossFileError::parquet(self.path)(error.into()))?;
        let chunk = |index: usize| {
            let pages = self.file.pages(part, index).map_err(LossFileError::parquet(self.path))?;
            Ok(ChunkReader { column: group.column(index).column_descr_ptr(), pages })
        };
        let thresholds = threshold_cells(chunk(self.threshold.0)?, self.threshold.1);
        let (mut examples, mut losses) = (None, None);
        if columns == Columns::All {
            examples = Some(I::cells(chunk(self.example.0)?, self.example.1));
            losses = Some(loss_cells(chunk(self.loss.0)?, self.loss.1));
        }
        Ok(Box::new(RowGroup {
            path: self.path,
            thresholds,
            examples,
            losses,
            next_row: self.rows_before[part] + 1,
            rows_left: rows,
        }))
    }
}

struct RowGroup<'a, I> {
    path: &'a Path,
    thresholds: Box<dyn ReadCells<f64>>,
    /// Cells of the examples, if the pass needs them, as it may need the losses.
    examples: Option<Box<dyn ReadCells<I>>>,
    losses: Option<Box<dyn ReadCells<f64>>>,
    next_row: u64,
    rows_left: usize,
}

impl<I: ParquetExample> Part<I> for RowGroup<'_, I> {
    fn fill(&mut self, batch: &mut Batch<I>) -> Result<(), LossFileError> {
        let rows = self.rows_left.min(BATCH);
        let (path, first) = (self.path, self.next_row);
        batch.places = Places::RowsFrom(first);
        self.thresholds
            .read(rows, &mut batch.thresholds)
            .map_err(|fault| fault.at(path, first, THRESHOLD))?;
        if let Some(examples) = &mut self.examples {
            examples.read(rows, &mut batch.examples).map_err(|fault| fault.at(path, first, EXAMPLE))?;
        }
        if let Some(losses) = &mut self.losses {
            losses.read(rows, &mut batch.losses).map_err(|fault| fault.at(path, first, LOSS))?;
        }
        self.next_row += rows as u64;
        self.rows_left -= rows;
        Ok(())
    }
}
