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
