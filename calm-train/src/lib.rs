//! Multi-exit training of T5 and of its exit classifier.

pub mod batches;
pub mod checkpoint;
pub mod classifier;
mod config;
mod curves;
mod error;
pub mod objective;
pub mod optimizer;
mod progress;
mod schedule;
mod trainer;
pub mod validation;

pub use crate::config::*;
pub use crate::curves::draw_learning_curves;
pub use crate::error::Error;
pub use crate::optimizer::{OptimizerConfig, OptimizerKind};
pub use crate::schedule::{Curve, ScheduleConfig, learning_rate_factor};
pub use crate::trainer::{TrainReport, train};
