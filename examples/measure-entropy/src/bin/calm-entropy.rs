//! The `calm` command with one more measure.

use std::process::ExitCode;

fn main() -> ExitCode {
    calm_core::MEASURES.add(&measure_entropy::ENTROPY);
    calm_cli::main()
}
