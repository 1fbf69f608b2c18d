//! Datasets: JSON, Parquet, tables of texts, and the bundled corpus.
//!
//! [`read_examples`] reads what a model is trained, calibrated or tested on, from files of any of these
//! formats, whatever their columns are called and wherever [`DatasetPaths`] says they are, Hugging Face's
//! cache included. [`read_records`] reads all that a file has. [`JsonLines`] reads any type line by line from
//! any stream, [`read_segments`] what a metric compares. [`debian::build`] makes the bundled corpus, and
//! [`tokenizer::train`] its tokenizer.

mod dataset_paths;
pub mod debian;
mod error;
mod example;
mod hub_cache;
mod json_document;
mod json_lines;
mod json_value;
mod parquet_column;
mod parquet_file;
mod records;
mod segments;
mod separated;
mod text;
pub mod tokenizer;

pub use dataset_paths::DatasetPaths;
pub use error::{Error, Result};
pub use example::{Columns, Example, WithoutReference, find, read_examples};
pub use hub_cache::HubCache;
pub use json_lines::JsonLines;
pub use parquet_file::{Row, read_rows, write_rows};
pub use records::{Records, has_lines_of_json, read_records};
pub use segments::{SegmentFormat, Segments, read_segments};
pub use text::{open_text, plain_text};
