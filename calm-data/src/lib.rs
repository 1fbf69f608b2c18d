//! Datasets: JSON Lines, Parquet, and the bundled corpus.
//!
//! [`read_examples`] reads what a model is trained, calibrated or tested on from a file of either format, whatever its
//! columns are called. [`JsonLines`] reads any type line by line from any stream. [`debian::build`] makes the bundled
//! corpus, and [`tokenizer::train`] its tokenizer.

pub mod debian;
mod error;
mod example;
mod json_lines;
mod parquet_file;
pub mod tokenizer;

pub use error::{Error, Result};
pub use example::{Columns, Example, read_examples};
pub use json_lines::JsonLines;
pub use parquet_file::{Row, read_rows, write_rows};
