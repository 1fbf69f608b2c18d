//! Builds the bundled corpus: `debian --out DIR [--lists DIR]`.

use calm_data::debian::{BuildOptions, build};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut options = BuildOptions::new("data");
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        match (flag.as_str(), arguments.next()) {
            ("--out", Some(folder)) => options.out = folder.into(),
            ("--lists", Some(folder)) => options.lists = Some(folder.into()),
            _ => {
                eprintln!("usage: debian [--out DIR] [--lists DIR]");
                return ExitCode::FAILURE;
            }
        }
    }
    match build(&options) {
        Ok(report) => {
            println!("{report:#?}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
