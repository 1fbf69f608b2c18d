//! No guarantee from the examples that a measure was fitted to.

use std::collections::{BTreeSet, HashSet};

use anyhow::bail;
use calm_checkpoint::source_hash;
use calm_core::{AgreementMaps, MeasureKind, PolicySpec};
use calm_engine::engine::{Engine, SourceForm, encode_source};

use crate::dataset::Dataset;

/// Refuses examples whose sources some policy's measure was fitted to, or its exit heads were trained on: on
/// these the measure is surer, and more often right, than on others.
///
/// # Errors
/// There is such an example; or what was fitted or the measure cannot be read, or a source has no tokens.
pub fn check_not_fitted_to(
    engine: &Engine,
    policies: &[PolicySpec],
    dataset: &Dataset,
    max_source_tokens: Option<usize>,
) -> anyhow::Result<()> {
    let model = engine.model();
    let Some(folder) = model.folder() else { return Ok(()) };
    let measures: BTreeSet<&MeasureKind> =
        policies.iter().filter_map(|policy| policy.parameters().measure).collect();
    let mut fitted_to: HashSet<String> = HashSet::new();
    for measure in &measures {
        let loaded = (measure.load)(model)?;
        fitted_to.extend(loaded.fitted_to().iter().flat_map(|fitted_to| fitted_to.sources.iter().cloned()));
    }
    if measures.iter().any(|measure| measure.maps.is_some())
        && let Some(maps) = AgreementMaps::read(folder)?
    {
        fitted_to.extend(maps.fitted_to.sources);
    }
    if fitted_to.is_empty() {
        return Ok(());
    }
    let codec = engine.text_codec()?;
    for example in &dataset.examples {
        let tokens = encode_source(
            codec,
            &example.source,
            SourceForm { chat: example.chat, limit: max_source_tokens },
        )?;
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
