//! T5 and Llama on libtorch, as backbones whose decoder may stop after any layer: checkpoints of Hugging Face
//! transformers, multi-exit decoders with a preallocated K/V cache, on CPU and CUDA.

mod about;
mod decoder;
pub mod device;
mod error;
pub mod init;
mod llama;
mod loader;
mod rms_norm;
mod t5;
mod weights;

pub use crate::error::Error;
pub use crate::llama::Llama;
pub use crate::loader::{LLAMA_LOADER, T5_LOADER};
pub use crate::t5::{Dropout, T5, TeacherForcing};
pub use crate::weights::{Weights, read_safetensors, read_shards, write_safetensors, write_shards};
