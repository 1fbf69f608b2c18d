//! Tests of the experiment: configuration, runs with a made-up backbone, and the binary with a tiny T5.

mod binary;
mod configuration;
mod made_up;
mod runs;
