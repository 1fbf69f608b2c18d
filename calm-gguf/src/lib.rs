//! GGUF files (github.com/ggml-org/ggml/blob/master/docs/gguf.md): metadata, and tensors whose weights may
//! lie in blocks of a few bits each.
//!
//! A file is mapped, and nothing in it is believed before it is checked: every count, length, offset and size
//! is held against the file's own size before there is memory for it. Metadata are never copied: a [`Value`]
//! is a view of the file. What a reader of weights needs of a type of tensors is in [`TensorType`].

mod block;
mod error;
mod file;
mod ggml_type;
mod metadata;
mod reader;
mod tensor_type;
mod value;

pub use crate::block::Block;
pub use crate::error::{Error, Fault, Place};
pub use crate::file::{Gguf, TensorInfo};
pub use crate::ggml_type::GgmlType;
pub use crate::tensor_type::TensorType;
pub use crate::value::{Array, FromValue, Value, ValueType};
