//! Tests of a training step against independent computations, and of whole runs on a tiny corpus.

#![allow(clippy::unwrap_used)]

mod batches;
mod configuration;
mod curves;
mod device;
mod heads;
mod layer_dropout;
mod objective;
mod optimizer;
mod preflight;
mod resuming;
mod runs;
mod schedule;
mod shallow_deep;
mod special_tokens;
mod teacher_forcing;
mod tiny;
