//! T5 checkpoints in the layout of Hugging Face transformers, as every engine reads them.
//!
//! They consist of `config.json`, `tokenizer.json`, weight files, and the rules about them that are not
//! written in any of these.

mod config;
mod config_file;
mod error;
mod exit_heads;
mod files;
pub mod init;
mod model;
mod model_type;
mod position;
mod safetensors_file;
mod sources;
mod tensor_names;
mod tokenizer;
mod weight_files;
mod weight_type;

pub use crate::config::{FeedForward, T5Config};
pub use crate::error::Error;
pub use crate::exit_heads::{HEADS_FILE, read_exit_heads, rounded_to_file, write_exit_heads};
pub use crate::files::{MODEL_STEM, checkpoint_fingerprint, files_of, fingerprint, weights_hash};
pub use crate::model::{EngineKind, LoadOptions, Loader, Model, Teamwork};
pub use crate::model_type::{T5_MODEL_TYPES, model_type};
pub use crate::position::{Direction, bucket};
pub use crate::safetensors_file::SafetensorsFile;
pub use crate::sources::{check_sources, cut_source, source_hash, source_seed};
pub use crate::tensor_names::{
    CLASSIFIER_BIAS, CLASSIFIER_WEIGHT, DECODER_EMBEDDING, ENCODER_EMBEDDING, HEAD, SHARED, first_names,
};
pub use crate::tokenizer::{SpecialTokens, Tokenizer};
pub use crate::weight_files::{StoredTensor, WeightFiles};
pub use crate::weight_type::WeightType;
