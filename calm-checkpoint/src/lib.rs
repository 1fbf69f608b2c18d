//! T5 checkpoints in the layout of Hugging Face transformers, as every engine reads them.
//!
//! They consist of `config.json`, `tokenizer.json`, weight files, and the rules about them that are not
//! written in any of these.

mod config;
mod config_file;
mod error;
mod files;
pub mod init;
mod model;
mod position;
mod sources;
mod tokenizer;
mod weight_type;

pub use crate::config::{FeedForward, T5Config};
pub use crate::error::Error;
pub use crate::files::{
    MODEL_STEM, checkpoint_fingerprint, files_of, fingerprint, is_known_leftover, map_file,
};
pub use crate::model::{EngineKind, LoadOptions, Loader, Model};
pub use crate::position::{Direction, bucket};
pub use crate::sources::{check_sources, cut_source, source_hash};
pub use crate::tokenizer::{SpecialTokens, Tokenizer};
pub use crate::weight_type::WeightType;

/// Name of the exit classifier's weight `[d_model]` in a checkpoint.
pub const CLASSIFIER_WEIGHT: &str = "calm.classifier.weight";
/// Name of the exit classifier's bias `[1]` in a checkpoint.
pub const CLASSIFIER_BIAS: &str = "calm.classifier.bias";
