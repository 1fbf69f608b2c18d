//! The paper's experiment: a sweep over policies, calibrated thresholds, tables and figures.
//!
//! A run goes through these modules from top to bottom:
//!
//! | module | does |
//! |---|---|
//! | [`config`] | TOML and overrides to a checked plan |
//! | [`dataset`] | examples and their shards |
//! | [`groups`] | examples that belong together, for which guarantees hold together |
//! | [`settings`] | which policies are decoded |
//! | [`jobs`] | which units have no file yet, and who decodes which of them |
//! | [`runner`] | workers decode these |
//! | [`mod@unit`] | the files of units, all that is known about the decoding |
//! | [`outputs`] | from those files alone: texts, losses and costs of every setting |
//! | [`fitted`] | refuses examples that a measure was fitted to |
//! | [`statistics`] | metrics, certified thresholds |
//! | [`trials`] | certified thresholds on random parts of the calibration examples |
//! | [`plots`] | figures |
//! | `report` | the page `report.html` |
//! | [`answer`] | what was found in few words, printed and as `results.md` |
//! | [`summary`] | CSV files, `summary.json` |
//!
//! [`mod@certify`] takes the same way for one measure, one tolerance and one set of examples.
//!
//! [`comparison`] runs several [`tasks`] and makes one table of them, [`paper`] the paper's figures.
//!
//! [`experiment::run`] ties them together for any engine, [`plots::draw_all`] adds the figures;
//! [`program::main`] runs both for the command line.

pub mod answer;
pub mod certify;
pub mod comparison;
pub mod config;
pub mod dataset;
mod estimate;
pub mod experiment;
pub mod fitted;
pub mod groups;
pub mod jobs;
pub mod outputs;
pub mod paper;
pub mod plots;
pub mod program;
mod report;
pub mod runner;
pub mod settings;
pub mod statistics;
pub mod summary;
pub mod tasks;
pub mod trials;
pub mod unit;
