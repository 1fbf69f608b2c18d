use calm_files::catch_panic;
use parquet::errors::Result;

use crate::damaged;

/// Runs code of the crate `parquet` on a file's bytes, and returns a panic of it as an error.
///
/// What `read` was working on should not be used any more after an error. Nothing about the panic is printed.
///
/// # Errors
/// What the code fails with, or its panic.
pub fn guarded<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_panic(read).unwrap_or_else(|panic| {
        Err(damaged(format_args!("it cannot be decoded ({})", panic.lines().next().unwrap_or_default())))
    })
}
