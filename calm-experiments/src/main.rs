//! `calm-experiments CONFIG.toml`: the paper's experiment.

use std::process::ExitCode;

fn main() -> ExitCode {
    calm_experiments::program::main()
}
