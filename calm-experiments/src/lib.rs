//! The paper's experiment: a sweep over policies, calibrated thresholds, tables and figures.
//!
//! A run goes through these modules from top to bottom:
//!
//! | module | does |
//! |---|---|
//! | [`config`] | TOML and overrides to a checked plan |
//! | [`dataset`] | examples and their shards |
//! | [`settings`] | which policies are decoded |
//! | [`engine`] | T5 on the engine that was asked for, ready for the runner |
//! | [`runner`] | workers decode the units that have no file yet |
//! | [`mod@unit`] | the files of units, all that is known about the decoding |
//! | [`outputs`] | from those files alone: texts, losses and costs of every setting |
//! | [`statistics`] | metrics, certified thresholds |
//! | [`trials`] | certified thresholds on random parts of the calibration examples |
//! | [`plots`] | figures |
//! | [`summary`] | CSV files, `summary.json`, the final table |
//!
//! [`mod@certify`] takes the same way for one measure, one tolerance and one set of examples.
//!
//! [`experiment::run`] ties them together for any backbone, [`plots::draw_all`] adds the figures; the binary runs both
//! with T5.

pub mod certify;
pub mod config;
pub mod dataset;
pub mod engine;
pub mod experiment;
pub mod outputs;
pub mod plots;
mod progress;
pub mod runner;
pub mod settings;
pub mod statistics;
pub mod summary;
pub mod trials;
pub mod unit;
