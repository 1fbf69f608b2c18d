//! Tells `calm --version` the commit and the engines of a build, and does what `build-rpath.rs` does.

use std::path::Path;
use std::process::Command;

#[path = "../build-rpath.rs"]
mod rpath;

// Cargo is told by standard output.
#[allow(clippy::print_stdout)]
fn main() {
    rpath::main();
    println!("cargo:rerun-if-changed=build.rs");
    let engines = match std::env::var_os("CARGO_FEATURE_LIBTORCH") {
        Some(_) => "engines cpu and libtorch",
        None => "engine cpu",
    };
    let mut commit = String::new();
    if let Some((name, log)) = checked_out() {
        println!("cargo:rerun-if-changed={log}");
        commit = format!("commit {name}, ");
    }
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    println!("cargo:rustc-env=CALM_VERSION={version} ({commit}{engines})");
}

/// The commit that is checked out and the file that changes with it, unless there is no git or the sources
/// are no checkout of their own.
fn checked_out() -> Option<(String, String)> {
    let arguments = ["rev-parse", "--show-prefix", "--git-path", "logs/HEAD", "--short=10", "HEAD"];
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let output = String::from_utf8(output.stdout).ok()?;
    let [prefix, log, commit] = output.lines().collect::<Vec<_>>().try_into().ok()?;
    // A file that is not there would have this script run at every build.
    let is_own = prefix == "calm-cli/" && Path::new(log).is_file();
    is_own.then(|| (commit.to_owned(), log.to_owned()))
}
