//! Checkpoints that are one GGUF file, in the terms of Hugging Face's checkpoints.

mod names;
mod special_tokens;

pub(crate) use self::names::GgufNames;
pub(crate) use self::special_tokens::CONTROL;
pub use self::special_tokens::GgufTokens;
