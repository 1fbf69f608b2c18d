use std::io;
use std::path::{Path, PathBuf};

/// What can be wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or folder cannot be made, written, renamed or removed.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file would be replaced that is also read.
    #[error("cannot write {}: it is also the input {}; give the output another name", path.display(), input.display())]
    AlsoRead {
        /// The output.
        path: PathBuf,
        /// The input, perhaps by another name.
        input: PathBuf,
    },
    /// A JSON file does not parse or lacks a key, or a value cannot be written as JSON.
    #[error("{}: {key}{source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The path of the key whose value is wrong, followed by a colon, or empty.
        key: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A document is not TOML, has an unknown or lacks a necessary key, or holds a value that cannot be.
    #[error("{place}: {key}{message}")]
    Document {
        /// `FILE:LINE` or `--set ARGUMENT`.
        place: String,
        /// The path of the key, followed by a colon, or empty.
        key: String,
        /// What is wrong.
        message: String,
    },
}

impl Error {
    /// What a failure to read `path` becomes.
    pub fn read(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Read { path: path.to_owned(), source }
    }

    /// What a failure to write `path` becomes.
    pub fn write(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Write { path: path.to_owned(), source }
    }

    /// What a failure to read or write JSON in `path` becomes.
    pub fn json(path: &Path) -> impl Fn(serde_json::Error) -> Self {
        move |source| Self::Json { path: path.to_owned(), key: String::new(), source }
    }
}
