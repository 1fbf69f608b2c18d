use std::path::Path;

use super::beta::{BETA, BetaMixtures};
use super::{AgreementMaps, FittedTo, MeasureKind};

impl MeasureKind {
    /// What the measure's file in a model's folder was fitted to, from which no guarantee may be computed;
    /// `None` if it is fitted to nothing, or not yet.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn fitted_to(&self, folder: &Path) -> Result<Option<FittedTo>, calm_files::Error> {
        if self == &BETA {
            Ok(BetaMixtures::read(folder)?.map(|mixtures| mixtures.fitted_to))
        } else if self.maps.is_some() {
            Ok(AgreementMaps::read(folder)?.map(|maps| maps.fitted_to))
        } else {
            Ok(None)
        }
    }
}
