//! Tests of the crate through its public interface.

// clippy.toml allows this in test functions; it does not know that helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod adaptive;
mod beam;
mod beta_mixture;
mod decoding;
mod exit_heads;
mod failures;
mod flops;
mod measures;
mod monotone;
mod naive;
mod policies;
mod profile;
mod sampling;
mod speculation;
mod streaming;
mod tables;
mod toy;

use proptest::test_runner::{Config, RngSeed};

/// So many random cases, the same ones in every run.
fn cases(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(220_707_061), failure_persistence: None, ..Config::default() }
}
