//! T5 on libtorch, as a backbone whose decoder may stop after any layer: checkpoints of Hugging Face
//! transformers, tokenizer, encoder, multi-exit decoder with a preallocated K/V cache, on CPU and CUDA.

pub mod device;
mod error;
pub mod init;
mod loader;
mod t5;
mod weights;

pub use crate::error::Error;
pub use crate::loader::LOADER;
pub use crate::t5::{Dropout, T5, TeacherForcing};
pub use crate::weights::{Weights, read_safetensors, read_shards, write_safetensors, write_shards};
