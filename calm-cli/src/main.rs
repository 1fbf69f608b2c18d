//! The `calm` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    calm_cli::main()
}
