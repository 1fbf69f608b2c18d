//! Configurations and tokenizers as people have them.

#![allow(clippy::unwrap_used)]

mod configurations;
mod damaged_tokenizers;
mod golden;
mod llama;
mod tokenizers;
