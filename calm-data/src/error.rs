use crate::DatasetPaths;
use std::path::{Path, PathBuf};

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong while a dataset is read or built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error(transparent)]
    File(#[from] calm_files::Error),
    /// A Parquet file could not be read or written.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the Parquet reader or writer said.
        source: parquet::errors::ParquetError,
    },
    /// A dataset is in none of the formats that can be read.
    #[error("{}: expected a file whose name ends in .parquet, .jsonl, .json, .csv or .tsv, or these with .gz or .zst", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// A file of the bundled corpus is not there that is made on each machine, since it is too large to come
    /// along.
    #[error("cannot read {}: No such file or directory; `calm data debian` makes it, into the folder data", path.display())]
    NotMade {
        /// The file.
        path: PathBuf,
    },
    /// No file matches a pattern.
    #[error("{}: no file matches this pattern", path.display())]
    NoMatch {
        /// The pattern.
        path: PathBuf,
    },
    /// A pattern is malformed.
    #[error("{}: {source}", path.display())]
    Pattern {
        /// The pattern.
        path: PathBuf,
        /// What is wrong with the pattern.
        source: glob::PatternError,
    },
    /// A path into Hugging Face's cache is malformed.
    #[error(
        "{}: expected hf://datasets/OWNER/NAME/FILE or hf://datasets/OWNER/NAME@REVISION/FILE",
        path.display()
    )]
    HubPath {
        /// The malformed path.
        path: PathBuf,
    },
    /// A dataset or a file of it was not brought into Hugging Face's cache.
    #[error("{}: not in {}: fetch it with `{command}`", path.display(), folder.display())]
    NotInHubCache {
        /// The `hf://` path.
        path: PathBuf,
        /// The folder that should exist, or should hold the file.
        folder: PathBuf,
        /// The command that fetches it.
        command: String,
    },
    /// Hugging Face's cache has a dataset in other revisions than the one asked for.
    #[error(
        "{}: {} has no revision `{revision}`, only {}: name one as in hf://datasets/OWNER/NAME@REVISION/FILE",
        path.display(), repository.display(), cached.join(", ")
    )]
    HubRevision {
        /// The `hf://` path.
        path: PathBuf,
        /// The dataset's folder in the cache.
        repository: PathBuf,
        /// The revision asked for.
        revision: String,
        /// The commits that the cache has.
        cached: Vec<String>,
    },
    /// A line or record is not what it should be.
    #[error("{}: {message}", place(path, Some(*line), *column))]
    Malformed {
        /// The file, or what stands for one (`standard input`).
        path: PathBuf,
        /// Number of the line in a JSON Lines file, or of the record in any other, counted from 1.
        line: usize,
        /// Number of the byte in the line, counted from 1, where it is known.
        column: Option<usize>,
        /// Description of the fault.
        message: String,
    },
    /// A column that was asked for does not exist.
    #[error("{}: no column `{column}`; there are: {}", place(path, *line, None), available.join(", "))]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// Number of the line in a JSON Lines file, or of the record in a JSON file, counted from 1. It is
        /// `None` for a Parquet file, which has the same columns everywhere.
        line: Option<usize>,
        /// The column that was asked for.
        column: String,
        /// The columns that exist.
        available: Vec<String>,
    },
    /// Two columns have the name that was asked for.
    #[error("{}: two columns are named `{column}`: rename one of them", path.display())]
    AmbiguousColumn {
        /// The file.
        path: PathBuf,
        /// The name of both.
        column: String,
    },
    /// A column of a Parquet file has a type that stands for no text.
    #[error("{}: column `{column}` holds {found}, which are no text: store them as strings", path.display())]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The name of the column.
        column: String,
        /// What the column holds, in the plural.
        found: &'static str,
    },
    /// A column holds something other than text.
    #[error("{}: column `{column}` should be {expected}, found {found}", place(path, Some(*line), None))]
    WrongType {
        /// The file.
        path: PathBuf,
        /// Number of the line in a JSON Lines file, or of the record in any other, counted from 1.
        line: usize,
        /// The name of the column.
        column: String,
        /// What the column should hold.
        expected: &'static str,
        /// What the column holds.
        found: &'static str,
    },
    /// A record has no text that counts as right.
    #[error(
        "{}: column `{column}` is an empty list, so that nothing counts as right; `without_reference = \"leave-out\"` \
         among the columns leaves such records out",
        place(path, Some(*line), None)
    )]
    NoReference {
        /// The file.
        path: PathBuf,
        /// Number of the line in a JSON Lines file, or of the record in any other, counted from 1.
        line: usize,
        /// The column of the target.
        column: String,
    },
    /// A dataset has no examples.
    #[error("{paths}: the dataset is empty")]
    Empty {
        /// The files of the dataset, as they were asked for.
        paths: DatasetPaths,
    },
    /// A program that the corpus builder needs did not start, or failed.
    #[error("{program}: {message}")]
    Command {
        /// The program's name.
        program: String,
        /// Why the program failed, in its own last words if it had any.
        message: String,
    },
    /// There is no mirror to fetch the corpus's indices from.
    #[error("{} names no mirror of Debian bookworm: give one, or a folder of lists that apt has fetched", etc.display())]
    NoMirror {
        /// Folder of the system's apt configuration.
        etc: PathBuf,
    },
    /// A folder of apt's lists lacks an index.
    #[error("{}: no file whose name ends in `{suffix}`", folder.display())]
    NoIndex {
        /// The folder of lists.
        folder: PathBuf,
        /// How the index's name ends.
        suffix: String,
    },
    /// A folder of apt's lists lacks a package.
    #[error(
        "{}: no file `{package}_VERSION.deb`: fetch it with `apt-get download {package}`, or leave its documentation out",
        folder.display()
    )]
    NoPackage {
        /// The folder of lists.
        folder: PathBuf,
        /// The binary package's name.
        package: String,
    },
    /// An origin of documentation is not among those that can be read.
    #[error(transparent)]
    UnknownDocumentation(#[from] calm_names::UnknownName),
    /// An apt index is not made of `Field: value` stanzas.
    #[error("{}:{line}: expected `Field: value` or a continuation line", path.display())]
    Stanza {
        /// The index.
        path: PathBuf,
        /// Number of the line, counted from 1.
        line: usize,
    },
    /// The indices hold too little text for the splits that were asked for.
    #[error("{task}: only {found} examples for a {split} split of {wanted}")]
    TooFewExamples {
        /// The task's name.
        task: &'static str,
        /// The split's name.
        split: &'static str,
        /// Number of examples that there are.
        found: usize,
        /// Number of examples that the split should have.
        wanted: usize,
    },
    /// The tokenizer could not be trained or saved.
    #[error("tokenizer: {0}")]
    Tokenizer(#[source] tokenizers::Error),
}

impl Error {
    /// Makes an error of the message without the place that serde_json adds.
    ///
    /// The line in that place counts from the start of the text that serde_json was given, which may be one
    /// line of a file.
    pub(crate) fn malformed_json(path: &Path, line: usize, error: &serde_json::Error) -> Error {
        let message = error.to_string();
        let suffix = format!(" at line {} column {}", error.line(), error.column());
        Error::Malformed {
            path: path.to_owned(),
            line,
            column: Some(error.column().max(1)),
            message: message.strip_suffix(&suffix).unwrap_or(&message).to_owned(),
        }
    }

    pub(crate) fn parquet(path: &Path) -> impl Fn(parquet::errors::ParquetError) -> Error {
        let path = path.to_owned();
        move |source| Error::Parquet { path: path.clone(), source }
    }
}

/// Formats a place as `file`, `file:line` or `file:line:column`.
fn place(path: &Path, line: Option<usize>, column: Option<usize>) -> String {
    let numbers = [line, column].into_iter().flatten().map(|number| format!(":{number}"));
    format!("{}{}", path.display(), numbers.collect::<String>())
}
