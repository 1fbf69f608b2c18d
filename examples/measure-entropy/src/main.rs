//! The experiment of `calm-experiments` with one more measure.

use std::process::ExitCode;

fn main() -> ExitCode {
    calm_core::MEASURES.add(&measure_entropy::ENTROPY);
    calm_experiments::program::main()
}
