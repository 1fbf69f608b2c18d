//! Configurations and tokenizers as people have them.

#![allow(clippy::unwrap_used)]

mod chat;
mod configurations;
mod damaged_tokenizers;
mod gguf_networks;
mod gguf_tokenizers;
mod golden;
mod llama;
#[path = "../../../calm-gguf/tests/gguf/made_file.rs"]
#[allow(dead_code)]
mod made_file;
mod tokenizers;
