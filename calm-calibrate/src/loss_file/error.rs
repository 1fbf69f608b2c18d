use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;

use crate::{Error, LossKind};

/// What can be wrong with a file of losses. Every message starts with the file's path.
#[derive(Debug, thiserror::Error)]
pub enum LossFileError {
    /// The file cannot be opened or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// The file is not CSV.
    #[error("{}: {source}", path.display())]
    Csv {
        /// Path of the file.
        path: PathBuf,
        /// Why it cannot be read.
        source: csv::Error,
    },
    /// The file is not Parquet, or of a kind that cannot be read.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// Path of the file.
        path: PathBuf,
        /// Why it cannot be read.
        source: ParquetError,
    },
    /// A column does not exist.
    #[error("{}: there is no column `{column}`, only {}", path.display(), quoted(available))]
    MissingColumn {
        /// Path of the file.
        path: PathBuf,
        /// Name of the column.
        column: &'static str,
        /// The columns that exist.
        available: Vec<String>,
    },
    /// Two columns have the same name.
    #[error("{}: two columns are named `{column}`: rename one of them", path.display())]
    AmbiguousColumn {
        /// Path of the file.
        path: PathBuf,
        /// Name of the columns.
        column: &'static str,
    },
    /// A column has a type that does not suit it.
    #[error("{}: the column `{column}` is {found}, expected {expected}", path.display())]
    ColumnType {
        /// Path of the file.
        path: PathBuf,
        /// Name of the column.
        column: &'static str,
        /// The column's type.
        found: String,
        /// The types that the column may have.
        expected: &'static str,
    },
    /// There is no row, or not even a header.
    #[error("{}: there are no rows", path.display())]
    NoRows {
        /// Path of the file.
        path: PathBuf,
    },
    /// A value is missing or does not suit the column.
    #[error("{}, {place}, column `{column}`: {message}", path.display())]
    Cell {
        /// Path of the file.
        path: PathBuf,
        /// Where in the file the value is.
        place: Place,
        /// Name of the column.
        column: &'static str,
        /// What is wrong with the value.
        message: String,
    },
    /// There is a second row for the same example and threshold.
    #[error("{}, {place}: example `{example}` has a second loss at threshold {threshold}", path.display())]
    Duplicate {
        /// Path of the file.
        path: PathBuf,
        /// Where in the file the second row is.
        place: Place,
        /// Name of the example.
        example: String,
        /// The threshold.
        threshold: f64,
    },
    /// An example does not have a loss at every threshold of the file.
    #[error("{}: example `{example}` has no loss at threshold {threshold}", path.display())]
    MissingLoss {
        /// Path of the file.
        path: PathBuf,
        /// Name of the first such example.
        example: String,
        /// The largest threshold at which it has no loss.
        threshold: f64,
    },
    /// A loss lies outside the range of the declared kind.
    #[error(
        "{}, {place}: the loss of example `{example}` at threshold {threshold} is {loss}, which is not in {}",
        path.display(), kind.range()
    )]
    InvalidLoss {
        /// Path of the file.
        path: PathBuf,
        /// Where in the file the loss is.
        place: Place,
        /// Name of the example.
        example: String,
        /// The threshold.
        threshold: f64,
        /// The loss.
        loss: f64,
        /// The declared kind of the losses.
        kind: LossKind,
    },
    /// Threshold 1 is not the full model, so the fallback would be void.
    #[error(
        "{}, {place}: at threshold 1, the full model, example `{example}` must have loss 0 but has {loss}",
        path.display()
    )]
    FullModelLoss {
        /// Path of the file.
        path: PathBuf,
        /// Where in the file the loss is.
        place: Place,
        /// Name of the example.
        example: String,
        /// The loss.
        loss: f64,
    },
    /// The second pass over the file met a threshold that the first one did not.
    #[error("{}: the file was changed while it was read", path.display())]
    Changed {
        /// Path of the file.
        path: PathBuf,
    },
    /// The options do not suit the losses.
    #[error("{}: {source}", path.display())]
    Calibration {
        /// Path of the file.
        path: PathBuf,
        /// What does not suit.
        source: Error,
    },
}

impl LossFileError {
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn csv(path: &Path) -> impl Fn(csv::Error) -> Self {
        move |source| Self::Csv { path: path.to_owned(), source }
    }

    pub(super) fn parquet(path: &Path) -> impl Fn(ParquetError) -> Self {
        move |source| Self::Parquet { path: path.to_owned(), source }
    }

    pub(super) fn calibration(path: &Path) -> impl Fn(Error) -> Self {
        move |source| Self::Calibration { path: path.to_owned(), source }
    }
}

/// Where a value is in a file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Number of the line in a CSV file; the header is line 1.
    Line(u64),
    /// Number of the row in a Parquet file.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(line) => write!(f, "line {line}"),
            Place::Row(row) => write!(f, "row {row}"),
        }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
