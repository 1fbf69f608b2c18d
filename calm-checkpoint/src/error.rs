use std::path::PathBuf;

use crate::tensor_names::first_names;

/// What can be wrong with a checkpoint, or with tokens that are given to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] calm_files::Error),
    /// A GGUF file is damaged, or lacks something.
    #[error(transparent)]
    Gguf(#[from] calm_gguf::Error),
    /// There is no checkpoint where one was looked for.
    #[error(
        "cannot read {}: No such file or directory; a model is a folder with config.json, weights and tokenizer.json, as \
         `hf download OWNER/NAME --local-dir DIR` fetches it, or a GGUF file",
        path.display()
    )]
    NoModel {
        /// Path of the `config.json` that is missing.
        path: PathBuf,
    },
    /// The directory holds no weights.
    #[error("{} holds neither {stem}.safetensors nor {stem}.safetensors.index.json, {instead}", dir.display())]
    NoWeights {
        /// Path of the directory.
        dir: PathBuf,
        /// What the weight files would be called.
        stem: String,
        /// What is there instead and what to do, as the end of the sentence.
        instead: String,
    },
    /// A file was not fetched from where it was published.
    #[error(
        "{} is a Git LFS pointer and not the file itself: run `git lfs pull` in its folder, or download it \
         with `hf download`",
        path.display()
    )]
    LfsPointer {
        /// Path of the file.
        path: PathBuf,
    },
    /// A file was overwritten or cut off while it was read.
    #[error("{} has changed while it was read: start again when nothing writes to it", path.display())]
    Changed {
        /// Path of the file.
        path: PathBuf,
    },
    /// `config.json` is that of another kind of network.
    #[error(
        "{}: model_type is `{found}`, a network that computes something else than {network}: there are {}",
        path.display(),
        known.join(", ")
    )]
    ModelType {
        /// Path of the file.
        path: PathBuf,
        /// The type in it.
        found: String,
        /// What the network is called that is wanted.
        network: &'static str,
        /// The types that mean this network.
        known: &'static [&'static str],
    },
    /// `config.json` is that of a network that nothing here knows.
    #[error("{}: there is no model of the type `{found}`: there are {}", path.display(), known.join(", "))]
    UnknownModelType {
        /// Path of the file.
        path: PathBuf,
        /// The type in it.
        found: String,
        /// The types of the networks that there are.
        known: Vec<&'static str>,
    },
    /// The list of shards names the wrong one.
    #[error("{} says that {shard} holds the tensor {name}, which is not there", path.display())]
    NotInShard {
        /// Path of the list.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// The file that it should be in.
        shard: String,
    },
    /// Two tensors of one name differ.
    #[error(
        "tensor {name} is in {} and again in {}, with other numbers: files of different checkpoints",
        paths[0].display(),
        paths[1].display()
    )]
    Contradiction {
        /// Name of the tensor.
        name: String,
        /// The files that hold it.
        paths: [PathBuf; 2],
    },
    /// The weights are not those of the network that `config.json` describes.
    #[error("{}: {source}", dir.display())]
    Weights {
        /// Path of the checkpoint.
        dir: PathBuf,
        /// What is wrong with which tensor.
        source: Box<Error>,
    },
    /// A weight is infinite or not a number, so that no output can be computed.
    #[error(
        "{}: tensor {name} holds {value} at {index:?}: the training that made it diverged, or the file is \
         damaged",
        path.display()
    )]
    NotFinite {
        /// Path of the file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// The first such number.
        value: f32,
        /// Where it is, an index for each dimension.
        index: Vec<usize>,
    },
    /// Tensors inside the network that `config.json` has no place for.
    #[error(
        "{} of the network's tensors have no place in it, and outputs without them would be wrong: {}. \
         Either config.json is another model's, or adapters were not merged into the weights",
        names.len(),
        first_names(names)
    )]
    UnusedTensors {
        /// Names of the tensors.
        names: Vec<String>,
    },
    /// A file of exit heads cannot be used with the backbone beside it.
    #[error("{} {reason}", path.display())]
    ExitHeads {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it, as the end of a sentence.
        reason: String,
    },
    /// `config.json` describes a network that cannot be run.
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
    #[error("tensor {name} of shape {expected:?} is missing{}", there_is(found))]
    MissingTensor {
        /// Name of the tensor.
        name: String,
        /// The tensor's shape according to `config.json`.
        expected: Vec<i64>,
        /// Names of the tensors that are there.
        found: Vec<String>,
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
    /// A chat template does not parse, or cannot be used for a conversation.
    #[error("{}: the chat template fails: {reason}", path.display())]
    ChatTemplate {
        /// Path of the file that has the template.
        path: PathBuf,
        /// What is wrong, in the template's own words where it refuses a conversation.
        reason: String,
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
    /// Numbers became too large for f32 in the encoder.
    #[error(
        "the states of source {row} of the batch are not finite after the encoder: the model's weights, or its \
         type of weights, make numbers too large"
    )]
    EncoderNotFinite {
        /// Number of the source in the batch, from 0.
        row: usize,
    },
    /// Numbers became too large for f32 while a decoder read its prompts.
    #[error(
        "the states of source {row} of the batch are not finite in the decoder: the model's weights, or its type of \
         weights, make numbers too large"
    )]
    PromptNotFinite {
        /// Number of the source in the batch, from 0.
        row: usize,
    },
    /// A decoder has not so many positions.
    #[error(
        "prompt {row} of the batch has {length} tokens, which leaves no place for {max_tokens} tokens of output: the \
         model has {positions} positions (max_position_embeddings)"
    )]
    ContextTooLong {
        /// Number of the prompt in the batch, from 0.
        row: usize,
        /// Number of its tokens.
        length: usize,
        /// The greatest length of an output.
        max_tokens: usize,
        /// Number of positions of the model.
        positions: usize,
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

/// What the names of a T5's or a Llama's blocks begin with.
const BLOCKS: [&str; 2] = ["encoder.block.", "model.layers."];

/// What else there is, where nothing is called as in the network.
fn there_is(found: &[String]) -> String {
    let adapter = if found.iter().any(|name| name.contains("lora_")) {
        "; adapters have to be merged into the weights, as peft's merge_and_unload() does"
    } else {
        ""
    };
    match found {
        [] => String::new(),
        _ if found.iter().any(|name| BLOCKS.iter().any(|block| name.starts_with(block))) => {
            adapter.to_owned()
        }
        _ => format!("; there are {}{adapter}", first_names(found)),
    }
}

impl From<Error> for calm_core::EngineError {
    fn from(error: Error) -> Self {
        Self::new(error)
    }
}
