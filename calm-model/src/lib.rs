//! T5 on libtorch, as a backbone whose decoder may stop after any layer: checkpoints of Hugging Face transformers,
//! tokenizer, encoder, multi-exit decoder with a preallocated K/V cache, on CPU and CUDA.

mod config;
pub mod device;
mod error;
pub mod init;
mod t5;
mod tokenizer;
mod weights;
pub mod workers;

pub use crate::config::{FeedForward, T5Config};
pub use crate::error::Error;
pub use crate::t5::{CLASSIFIER_BIAS, CLASSIFIER_WEIGHT, Dropout, Encoded, Session, T5, TeacherForcing};
pub use crate::tokenizer::Tokenizer;
pub use crate::weights::{
    Weights, hex, map_file, read_safetensors, read_shards, replace_file, write_safetensors, write_shards,
};
