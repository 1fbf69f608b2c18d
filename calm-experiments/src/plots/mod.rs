//! The figures of a run.

pub(crate) mod guarantees;
pub(crate) mod looks;
pub(crate) mod quality;
mod risk;

use std::path::{Path, PathBuf};

use calm_plots::{Error, save};

pub use self::risk::draw_risk;
use crate::config::Plan;
use crate::statistics::Results;

/// Draws all figures of a run into `folder`, each as SVG and as PNG, and returns the files.
///
/// # Errors
/// A file cannot be written.
pub fn draw_all(plan: &Plan, results: &Results, folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files =
        Vec::from(save(&quality::QualityVsLayers(quality::quality_vs_layers(plan, results)), folder)?);
    let guarantees = [
        guarantees::GuaranteesFigure::certified(results),
        guarantees::GuaranteesFigure::trials(&results.trials, results.num_layers),
    ];
    for figure in guarantees.iter().flatten() {
        files.extend(save(figure, folder)?);
    }
    Ok(files)
}
