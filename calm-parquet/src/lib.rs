//! Parquet files of unknown origin, opened so that damage is an error.
//!
//! The crate `parquet` trusts what a file says of itself: a damaged byte can end in a panic, or in an
//! allocation of gigabytes. [`ParquetFile`] checks the footer and each page's header against what the file
//! really holds before that crate acts on them. What no check foresees panics inside [`guarded`], which makes
//! an error of it.

mod delta;
mod file;
mod footer;
mod guard;
mod pages;
mod thrift;

pub use file::ParquetFile;
pub use guard::guarded;

use parquet::errors::ParquetError;

/// Error for a file that contradicts itself.
fn damaged(what: impl std::fmt::Display) -> ParquetError {
    ParquetError::General(format!("the file is damaged: {what}"))
}
