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

use std::path::Path;

use calm_core::Token;

use crate::reliability::Reliability;

pub mod agreement;
pub mod beta;
mod held_out;
pub mod observe;
pub mod reliability;
pub mod tune;

pub use agreement::{Fitted, fit};
pub use beta::{FittedBeta, fit_beta};
pub use observe::{Observations, observe};

/// Fits all measures that say how probable agreement is, and writes the fits beside the model in `folder`:
/// how they fare on examples that were held out.
///
/// # Errors
/// As [`fit`] and [`fit_beta`] have them, before anything is written; or a file cannot be written.
pub fn fit_beside(
    folder: &Path,
    observations: &Observations,
    sources: &[Vec<Token>],
) -> Result<Vec<Reliability>, Error> {
    let (maps, beta) = (fit(observations, sources)?, fit_beta(observations, sources)?);
    maps.maps.write(folder)?;
    beta.mixtures.write(folder)?;
    Ok([maps.reliability, beta.reliability].concat())
}

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
