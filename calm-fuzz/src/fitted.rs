//! What was fitted to a model and lies beside it: maps of agreement, and mixtures of Beta distributions.

use calm_core::{AGREEMENT_FILE, AgreementMaps, BETA_FILE, BetaMixtures};

use crate::scratch;

/// Either file.
pub(crate) fn read(input: &[u8]) -> anyhow::Result<()> {
    let folder = scratch::folder();
    scratch::file(AGREEMENT_FILE, input);
    scratch::file(BETA_FILE, input);
    let confidences = [f32::NAN, f32::NEG_INFINITY, -1.0, 0.0, 0.3, 1.0, f32::INFINITY];
    let maps = AgreementMaps::read(&folder);
    for map in maps.iter().flatten().flat_map(|maps| &maps.maps) {
        let _ = confidences.map(|confidence| map.map.at(confidence));
    }
    let mixtures = BetaMixtures::read(&folder);
    for mixture in mixtures.iter().flatten().flat_map(|mixtures| &mixtures.layers) {
        let _ = confidences.map(|confidence| mixture.posterior(confidence.into()));
    }
    maps.map(drop).or(mixtures.map(drop))?;
    Ok(())
}
