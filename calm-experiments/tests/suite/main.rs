//! Tests of the experiment: configuration, runs with a made-up backbone, and the binary with a tiny T5.

// Helpers of tests count as tests.
#![allow(clippy::unwrap_used)]

mod binary;
mod bundled;
mod certificates;
mod comparison;
mod configuration;
mod datasets;
mod made_up;
mod paper;
mod runs;
mod spread;
mod trials;
mod units;
