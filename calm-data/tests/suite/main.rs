//! Tests of the crate's public interface.

// Clippy knows test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

mod added;
mod builder;
mod corpus;
mod dataset_paths;
mod json_documents;
mod readers;
mod tokenizer;
