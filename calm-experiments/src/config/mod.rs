//! Configuration: a TOML file with overrides ([`RawConfig`], as it is written) becomes a [`Plan`] (checked, ready to run).
//!
//! Errors name the file and the line, or the `--set` argument, and the path of the key.

mod document;
mod plan;
mod raw;

use std::path::{Path, PathBuf};

use document::{Document, Sources};

pub use plan::{DatasetPlan, Objective, ObjectiveKind, Plan, Series, loss_kind};
pub use raw::{
    RawCalibration, RawConfig, RawData, RawDecode, RawMeasure, RawPlots, RawSweep, RawTrials, StaticLayers,
};

/// What can be wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, an unknown or missing key, or a value that cannot be.
    #[error("{place}: {key}{message}")]
    Invalid {
        /// `FILE:LINE` or `--set ARGUMENT`.
        place: String,
        /// The path of the key, followed by a colon, or empty.
        key: String,
        /// What is wrong.
        message: String,
    },
}

/// Reads a configuration file, applies `overrides` (each `KEY.PATH=VALUE`, a TOML value or else a string) and checks it.
///
/// # Errors
/// [`ConfigError`], for the first thing that is wrong.
pub fn load(path: &Path, overrides: &[String]) -> Result<Plan, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(path, text, overrides)
}

/// As [`load`], for a text that is already read; `path` is only named in errors.
///
/// # Errors
/// [`ConfigError::Invalid`]
pub fn parse(path: &Path, text: String, overrides: &[String]) -> Result<Plan, ConfigError> {
    let sources = Sources::new(path, text, overrides)?;
    let document = Document::parse(&sources)?;
    Plan::check(document.deserialize()?, &document)
}
