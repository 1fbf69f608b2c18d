//! Tests of the crate's public interface.

// Clippy exempts test functions, but not their helpers.
#![allow(clippy::unwrap_used)]

mod added;
mod builder;
mod corpus;
mod dataset_paths;
mod json_documents;
mod parquet_types;
mod readers;
mod segments;
mod tokenizer;
