//! The engine against independent decodings, and its laws: results do not depend on batch, threads or
//! instructions.

#![allow(clippy::unwrap_used)]

mod cache_types;
mod files;
mod gguf;
mod llama_cpp;
mod logits;
mod profile;
mod reference;
