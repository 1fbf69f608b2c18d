//! Files that are written whole or not at all, JSON files, and TOML documents whose errors name the place.

mod document;
mod error;
mod write;

use std::path::Path;

use serde::de::DeserializeOwned;

pub use document::Document;
pub use error::Error;
pub use write::{rename, write, write_json};

/// Reads a file.
///
/// # Errors
/// [`Error::Read`]
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(Error::read(path))
}

/// Reads a text.
///
/// # Errors
/// [`Error::Read`], for a file that is no UTF-8 either.
pub fn read_to_string(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(Error::read(path))
}

/// Writes a file as [`write()`] does, unless it has these bytes already: what is finished may lie where
/// nothing can be written.
///
/// # Errors
/// [`Error::Write`]
pub fn write_changed(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
    match std::fs::read(path) {
        Ok(found) if found == bytes.as_ref() => Ok(()),
        _ => write(path, bytes),
    }
}

/// Reads a JSON file.
///
/// # Errors
/// [`Error::Read`] and [`Error::Json`]
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    serde_json::from_str(&read_to_string(path)?).map_err(Error::json(path))
}

/// Bytes in hexadecimal, as hashes are written.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
