//! What is fitted to a model's own outputs, without labels and before any guarantee is computed.
//!
//! | module | has |
//! |---|---|
//! | [`mod@observe`] | decoding at full depth, while every measure says at every layer what it would |
//! | [`agreement`] | the maps from confidences to probabilities that the layer's token is the last layer's |
//! | [`beta`] | mixtures of Beta distributions that give such probabilities |
//! | [`reliability`] | how far these probabilities are from what happens, on examples they were not fitted to |
//! | [`tune`] | which layers to test after, and by which measure, by the time it takes |
//!
//! All of it reads training sources. [`calm_core::FittedTo`] remembers which, so that a guarantee computed
//! from one of them can be refused.

pub mod agreement;
pub mod beta;
mod held_out;
pub mod observe;
pub mod reliability;
pub mod tune;

pub use agreement::{Fitted, fit};
pub use beta::{FittedBeta, fit_beta};
pub use observe::{Observations, observe};

/// Why nothing was fitted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model could not be decoded with.
    #[error(transparent)]
    Decode(#[from] calm_core::DecodeError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] calm_files::Error),
    /// A figure could not be drawn.
    #[error(transparent)]
    Plot(#[from] calm_plots::Error),
    /// There are too few examples, or too few layers.
    #[error("{0}")]
    Data(String),
}
