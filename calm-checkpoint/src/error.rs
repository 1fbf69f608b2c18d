use std::path::PathBuf;

/// What can be wrong with a checkpoint, or with tokens that are given to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] calm_files::Error),
    /// The directory holds no checkpoint.
    #[error("{} holds neither model.safetensors nor model.safetensors.index.json", dir.display())]
    NoWeights {
        /// Path of the directory.
        dir: PathBuf,
    },
    /// `config.json` describes something that is not a T5 that can be run.
    #[error("{}: {reason}", path.display())]
    Config {
        /// Path of the file.
        path: PathBuf,
        /// The key, and why it cannot be run.
        reason: String,
    },
    /// A weight file is not valid safetensors, for example because it was cut off.
    #[error("{} is not a valid safetensors file: {source}", path.display())]
    Safetensors {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it.
        source: safetensors::SafeTensorError,
    },
    /// A tensor is stored in a type that weights cannot have.
    #[error("tensor {name} has the type {found}; weights must be F32, F16 or BF16")]
    TensorType {
        /// Name of the tensor.
        name: String,
        /// The type in which the tensor is stored.
        found: String,
    },
    /// The checkpoint lacks a tensor that the configuration asks for.
    #[error("tensor {name} of shape {expected:?} is missing")]
    MissingTensor {
        /// Name of the tensor.
        name: String,
        /// The tensor's shape according to `config.json`.
        expected: Vec<i64>,
    },
    /// A tensor's shape contradicts the configuration.
    #[error("tensor {name} has the shape {found:?}, but config.json asks for {expected:?}")]
    TensorShape {
        /// Name of the tensor.
        name: String,
        /// The tensor's shape according to `config.json`.
        expected: Vec<i64>,
        /// The tensor's shape in the file.
        found: Vec<i64>,
    },
    /// A tokenizer does not parse, contradicts its model, or failed on a text.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no `tokenizer.json`.
    #[error("{} holds no tokenizer.json, which texts need{advice}", dir.display())]
    NoTokenizer {
        /// Path of the directory.
        dir: PathBuf,
        /// The command that makes one of what there is, or empty.
        advice: String,
    },
    /// A source has not a single token, so that attention is undefined.
    #[error("source {row} of the batch has no tokens")]
    EmptySource {
        /// Number of the source in the batch, from 0.
        row: usize,
    },
    /// A source has a token for which the embedding has no row.
    #[error("source {row} of the batch holds token {token}, but the vocabulary ends at {vocab_size}")]
    TokenOutOfRange {
        /// Number of the source in the batch, from 0.
        row: usize,
        /// The offending token.
        token: u32,
        /// Number of rows of the embedding.
        vocab_size: usize,
    },
}

impl From<Error> for calm_core::EngineError {
    fn from(error: Error) -> Self {
        Self::new(error)
    }
}
