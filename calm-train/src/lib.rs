//! Multi-exit training of T5 and of its exit classifier.

pub mod batches;
pub mod checkpoint;
pub mod classifier;
mod config;
pub mod corpus;
mod curves;
mod error;
mod finish;
pub mod loader;
pub mod objective;
pub mod optimizer;
pub mod parameters;
mod progress;
mod schedule;
mod start;
pub mod step;
pub mod tokens;
mod trainer;
pub mod validation;
mod watch;

pub use crate::config::*;
pub use crate::curves::draw_learning_curves;
pub use crate::error::Error;
pub use crate::finish::TrainReport;
pub use crate::optimizer::{OptimizerConfig, OptimizerKind};
pub use crate::schedule::{Curve, Pace, ScheduleConfig, learning_rate_factor};
pub use crate::trainer::{TrainOptions, Trained, prepare, train};
pub use crate::watch::LossWatch;

/// Writes a value as indented JSON.
fn write_json(path: &std::path::Path, value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|source| Error::Json { path: path.to_owned(), source })?;
    std::fs::write(path, text + "\n").map_err(|source| Error::Write { path: path.to_owned(), source })
}
