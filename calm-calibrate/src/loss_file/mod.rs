//! Losses from a CSV or Parquet file, which may be far larger than the memory.
//!
//! The file has a row for each threshold and example with the columns `threshold`, `example` and `loss`,
//! which may be in any order and among others:
//!
//! | column | value | CSV | Parquet |
//! |---|---|---|---|
//! | `threshold` | a number in `[0, 1]`; 1 is the full model | decimal | DOUBLE, FLOAT, INT32, INT64 |
//! | `example` | the name of the prompt, at every threshold the same | text | INT32, INT64, string |
//! | `loss` | a number in the range of the declared [`LossKind`] | decimal | DOUBLE, FLOAT, INT32, INT64, BOOLEAN |
//!
//! CSV has a header. A file that begins as Parquet does or is named `.parquet` is read as Parquet. No cell
//! may be empty, and every example must have exactly one loss at every threshold of the file.
//!
//! The grid is the set of thresholds in the file, from the largest to the least, whatever their order there.
//! The examples are taken in the order in which they first appear. It **must have been fixed without looking
//! at the losses**: a file that somebody sorted by loss is not a sample. Otherwise the order of the rows only
//! matters for the memory: losses that come before those of earlier examples are kept until these have come.
//! If there are none of that kind, as in files sorted by threshold or by example, only the examples' names
//! and a few batches are in memory.

mod collector;
mod csv_rows;
mod error;
mod grid;
mod parquet_cells;
mod parquet_rows;
mod rows;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use self::error::{LossFileError, Place};

use self::collector::{Collector, Expected, Sink};
use self::csv_rows::CsvLosses;
use self::grid::Grid;
use self::parquet_rows::ParquetLosses;
use self::rows::{Columns, ExampleId, Source, for_each_batch};
use crate::calibrate::Calibrator;
use crate::{Calibration, CalibrationOptions, Error, LossKind, LossTable, Tolerance};

/// Calibrates like [`calibrate`](crate::calibrate()) on the losses in a file of the form that
/// [`loss_file`](self) describes.
///
/// # Errors
/// What that function fails on, and a file that is not of this form; the message names the file, the line or
/// row and the column or the example.
pub fn calibrate_file(path: &Path, options: &CalibrationOptions) -> Result<Calibration, LossFileError> {
    LossFile::new(path).calibrate(options)
}

/// Reads all losses of a file of the form that [`loss_file`](self) describes.
///
/// The examples are in the order in which they first appear.
///
/// # Errors
/// The file is not of this form, or has losses that are NaN or infinite. [`calibrate`](crate::calibrate())
/// checks that they are in the range of their kind.
pub fn read_table(path: &Path) -> Result<LossTable, LossFileError> {
    LossFile::new(path).read_table()
}

/// A file of losses, and how to read it.
#[derive(Debug, Clone, PartialEq)]
pub struct LossFile {
    /// Path of the file.
    pub path: PathBuf,
    /// A limit: if given, each loss is replaced by whether it [exceeds](crate::exceeds) it.
    ///
    /// That is 0 or 1, of kind [`LossKind::Binary`]; the loss in the file may be any number, or infinite, but
    /// not NaN. Losses of threshold 1, which must be 0, are left alone.
    pub limit: Option<f64>,
}

impl LossFile {
    /// Takes the losses as they are.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), limit: None }
    }

    /// Calibrates like [`calibrate_file`].
    ///
    /// # Errors
    /// What [`calibrate_file`] fails on.
    pub fn calibrate(&self, options: &CalibrationOptions) -> Result<Calibration, LossFileError> {
        Ok(self.calibrate_each(options, &[options.delta])?.swap_remove(0))
    }

    /// Calibrates like [`calibrate_each`](crate::calibrate_each), reading the file once for all of `deltas`.
    ///
    /// # Errors
    /// What [`calibrate_file`] fails on.
    pub fn calibrate_each(
        &self,
        options: &CalibrationOptions,
        deltas: &[Tolerance],
    ) -> Result<Vec<Calibration>, LossFileError> {
        let (_, calibrator) = self.read(Some(options.loss_kind), |thresholds, examples| {
            Calibrator::new(thresholds, examples, options, deltas)
        })?;
        calibrator.finish().map_err(LossFileError::calibration(&self.path))
    }

    /// Reads all losses like [`read_table`].
    ///
    /// # Errors
    /// What [`read_table`] fails on.
    pub fn read_table(&self) -> Result<LossTable, LossFileError> {
        let empty_rows = |thresholds: &[f64], _examples: usize| Ok(vec![Vec::new(); thresholds.len()]);
        let (thresholds, losses) = self.read(None, empty_rows)?;
        LossTable::new(thresholds, losses).map_err(LossFileError::calibration(&self.path))
    }

    /// Reads the file twice: a calibration must know the thresholds and the number of examples before the
    /// first loss.
    fn read<S: Sink>(
        &self,
        kind: Option<LossKind>,
        new_sink: impl FnOnce(&[f64], usize) -> Result<S, Error>,
    ) -> Result<(Vec<f64>, S), LossFileError> {
        let (path, expected) = (self.path.as_path(), Expected { limit: self.limit, kind });
        if !is_parquet(path)? {
            return read_from::<String, _>(&CsvLosses::open(path)?, path, expected, new_sink);
        }
        let file = ParquetLosses::open(path)?;
        if file.has_i64_examples() {
            read_from::<i64, _>(&file, path, expected, new_sink)
        } else {
            read_from::<String, _>(&file, path, expected, new_sink)
        }
    }
}

fn read_from<I: ExampleId, S: Sink>(
    source: &dyn Source<I>,
    path: &Path,
    expected: Expected,
    new_sink: impl FnOnce(&[f64], usize) -> Result<S, Error>,
) -> Result<(Vec<f64>, S), LossFileError> {
    let grid = Grid::read(source, path)?;
    let sink = grid.examples().map(|examples| new_sink(&grid.thresholds, examples)).transpose();
    let sink = sink.map_err(LossFileError::calibration(path))?;
    let mut collector = Collector::new(path, &grid, expected, sink);
    for_each_batch(source, Columns::All, |batch| collector.push(batch))?;
    let sink = collector.finish()?;
    Ok((grid.thresholds, sink))
}

fn is_parquet(path: &Path) -> Result<bool, LossFileError> {
    let mut file = File::open(path).map_err(LossFileError::io(path))?;
    let mut start = Vec::new();
    file.by_ref().take(4).read_to_end(&mut start).map_err(LossFileError::io(path))?;
    Ok(start == b"PAR1" || path.extension().is_some_and(|extension| extension == "parquet"))
}
