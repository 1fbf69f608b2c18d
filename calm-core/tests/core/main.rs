//! Tests of the crate through its public interface.

// clippy.toml allows this in test functions; it does not know that helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod batches;
mod decoding;
mod failures;
mod flops;
mod measures;
mod naive;
mod policies;
mod toy;
