//! No guarantee from the examples that a measure was fitted to.

use std::collections::HashSet;

use anyhow::bail;
use calm_checkpoint::source_hash;
use calm_core::{AgreementMaps, PolicySpec};
use calm_engine::engine::{Engine, encode_source};

use crate::dataset::Dataset;

/// Refuses examples whose sources the maps of some policy's measure were fitted to: on these the measure is
/// surer, and more often right, than on others.
///
/// # Errors
/// There is such an example; or the maps cannot be read, or a source has no tokens.
pub fn check_not_fitted_to(
    engine: &Engine,
    policies: &[PolicySpec],
    dataset: &Dataset,
    max_source_tokens: Option<usize>,
) -> anyhow::Result<()> {
    let maps =
        |policy: &PolicySpec| policy.parameters().measure.is_some_and(|measure| measure.maps.is_some());
    let (Some(folder), true) = (engine.model().folder(), policies.iter().any(maps)) else { return Ok(()) };
    let Some(maps) = AgreementMaps::read(folder)? else { return Ok(()) };
    let fitted_to: HashSet<String> = maps.fitted_to.sources.into_iter().collect();
    let codec = engine.text_codec()?;
    for example in &dataset.examples {
        let tokens = encode_source(codec, &example.source, max_source_tokens)?;
        if fitted_to.contains(&source_hash(&tokens)) {
            let (split, id) = (dataset.split, &example.id);
            bail!(
                "the {split} example {id} was used to fit the confidence of {}, which no guarantee may be computed \
                 from: fit it to other examples, or name this configuration when fitting",
                folder.display()
            );
        }
    }
    Ok(())
}
