//! What programs that decode have in common, from a checkpoint's folder to generations in the order of the
//! sources.
//!
//! | module | has |
//! |---|---|
//! | [`models`] | the table of models: which engine loads which architecture |
//! | [`engine`] | the engine that was asked for, with a checkpoint and its tokenizer |
//! | [`batches`] | sources of like length together, and back in their order |
//! | [`decoding`] | reading batches and decoding them, one after the other or side by side |
//! | [`limits`] | the ranges of numbers on command lines and in configurations |
//! | [`program`] | how a program starts and ends, and the flags that choose an engine |
//! | [`signals`] | what a program does when it is told to end |
//! | [`text_stream`] | the text of an output while it is decoded |
//! | [`waiting`] | whether other programs keep the cores busy |

pub mod batches;
pub mod decoding;
pub mod engine;
pub mod limits;
pub mod models;
pub mod program;
pub mod signals;
pub mod text_stream;
pub mod waiting;
