//! What programs that decode have in common, from a checkpoint's folder to generations in the order of the
//! sources.
//!
//! | module | has |
//! |---|---|
//! | [`models`] | the table of models: which engine loads which architecture |
//! | [`engine`] | the engine that was asked for, with a checkpoint and its tokenizer |
//! | [`batches`] | sources of like length together, and back in their order |
//! | [`decoding`] | reading batches and decoding them, one after the other or side by side |
//! | [`program`] | the flags that choose an engine, and how a program reports what went wrong |

pub mod batches;
pub mod decoding;
pub mod engine;
pub mod models;
pub mod program;
