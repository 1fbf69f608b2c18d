use std::path::{Path, PathBuf};

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong while a dataset is read or built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A Parquet file could not be read or written.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the Parquet reader or writer said.
        source: parquet::errors::ParquetError,
    },
    /// A program the corpus builder needs did not start or failed.
    #[error("{program}: {message}")]
    Command {
        /// The program's name.
        program: String,
        /// Why it failed: its own last words where it had any.
        message: String,
    },
    /// A folder of apt's lists lacks an index.
    #[error("{}: no file whose name ends in `{suffix}`", folder.display())]
    NoIndex {
        /// The folder of lists.
        folder: PathBuf,
        /// How the index's name ends.
        suffix: String,
    },
    /// An apt index is not made of `Field: value` stanzas.
    #[error("{}:{line}: expected `Field: value` or a continuation line", path.display())]
    Stanza {
        /// The index.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// The indices hold too little text for the splits that were asked for.
    #[error("{task}: only {found} examples for a {split} split of {wanted}")]
    TooFewExamples {
        /// The task's name.
        task: &'static str,
        /// The split's name.
        split: &'static str,
        /// Examples there are.
        found: usize,
        /// Examples the split should have.
        wanted: usize,
    },
    /// The tokenizer could not be trained or saved.
    #[error("tokenizer: {0}")]
    Tokenizer(#[source] tokenizers::Error),
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    }

    pub(crate) fn parquet(path: &Path) -> impl Fn(parquet::errors::ParquetError) -> Error {
        let path = path.to_owned();
        move |source| Error::Parquet { path: path.clone(), source }
    }
}
