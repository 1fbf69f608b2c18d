//! What is checked before a calibration is applied to a model.

use anyhow::ensure;
use calm_checkpoint::Model;
use calm_experiments::certify::Certificate;
use calm_files::tell;

/// Refuses a calibration that was made with another model, or warns of it where `force` is given.
pub(crate) fn check_calibration(
    calibration: &Certificate,
    model: &dyn Model,
    force: bool,
) -> anyhow::Result<()> {
    if let Err(error) = calibration.check_model(model.fingerprint(), model.shape().num_layers) {
        ensure!(force, "{error}; --force uses it without its guarantee");
        tell(format_args!("warning: {error}: nothing is guaranteed"));
    }
    if calibration.calibration.fallback {
        tell("note: the calibration certified no threshold, so that no token leaves early");
    }
    Ok(())
}
