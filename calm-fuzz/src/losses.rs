//! Losses in CSV.

use calm_calibrate::{CalibrationOptions, LossFile, LossKind, Tolerance};

use crate::scratch;

/// The file.
pub(crate) fn read(input: &[u8]) -> anyhow::Result<()> {
    let path = scratch::file("losses.csv", input);
    let options = CalibrationOptions::new(Tolerance::new(0.5)?, LossKind::UnitInterval);
    LossFile { path: path.clone(), limit: Some(0.3) }.read_table()?;
    let file = LossFile::new(path);
    file.read_table()?;
    file.calibrate(&options)?;
    Ok(())
}
