//! Configuration: a TOML file with overrides ([`RawConfig`], as it is written) becomes a [`Plan`] (checked,
//! ready to run).
//!
//! Errors name the file and the line, or the `--set` argument, and the path of the key.

mod plan;
mod raw;

use std::path::Path;

use calm_files::{Document, Error};

pub use plan::{DatasetPlan, Objective, ObjectiveKind, Plan, Series, label, loss_kind, policy_at};
pub use raw::{
    PaperDataset, PaperModel, RawCalibration, RawCompare, RawConfig, RawData, RawDecode, RawMeasure,
    RawPaper, RawPlots, RawSeries, RawSweep, RawTrials, StaticLayers,
};

/// Reads a configuration file, applies `overrides` (each `KEY.PATH=VALUE`, a TOML value or else a string) and
/// checks it.
///
/// # Errors
/// [`Error`], for the first thing that is wrong.
pub fn load(path: &Path, overrides: &[String]) -> Result<Plan, Error> {
    plan_of(&Document::read(path, overrides)?)
}

/// As [`load`], for a text that is already read; `path` is only named in errors.
///
/// # Errors
/// [`Error::Document`]
pub fn parse(path: &Path, text: String, overrides: &[String]) -> Result<Plan, Error> {
    plan_of(&Document::new(path, text, overrides)?)
}

pub(crate) fn plan_of(document: &Document) -> Result<Plan, Error> {
    Plan::check(document.deserialize()?, document)
}
