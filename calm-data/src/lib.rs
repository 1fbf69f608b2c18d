//! Datasets: JSON Lines, Parquet, and the bundled corpus.

pub mod debian;
mod error;
mod table;
pub mod tokenizer;

pub use error::{Error, Result};
pub use table::{Row, write_parquet};
