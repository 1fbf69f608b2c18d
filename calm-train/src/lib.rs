//! Multi-exit training of T5, of its exit classifier, and of exit heads on a frozen one.

pub mod batches;
pub mod checkpoint;
pub mod classifier;
mod config;
pub mod corpus;
mod curves;
mod error;
pub mod heads;
mod initial_weights;
pub mod loader;
mod loss_watch;
mod made_with;
pub mod objective;
pub mod optimizer;
mod output;
pub mod parameters;
mod preflight;
mod progress;
mod publish;
mod schedule;
pub mod shallow_deep;
pub mod step;
pub mod tokens;
mod trainer;
pub mod validation;

pub use crate::config::*;
pub use crate::curves::draw_learning_curves;
pub use crate::error::Error;
pub use crate::heads::{Coverage, HeadScore, HeadsConfig, Material, TrainedHeads, train_heads};
pub use crate::loss_watch::LossWatch;
pub use crate::made_with::MadeWith;
pub use crate::optimizer::{OptimizerConfig, OptimizerKind};
pub use crate::publish::TrainReport;
pub use crate::schedule::{Curve, Pace, ScheduleConfig, learning_rate_factor};
pub use crate::trainer::{TrainOptions, Trained, prepare, train};
