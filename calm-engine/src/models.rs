//! The table of models. A new architecture is a file in each engine that executes it, and a line here.

use std::path::Path;

use anyhow::{Context, bail};
use calm_checkpoint::{EngineKind, Loader, model_type};

/// Every architecture on every engine of this program.
pub static LOADERS: &[&Loader] = &[
    &calm_cpu::T5_LOADER,
    &calm_cpu::LLAMA_LOADER,
    #[cfg(feature = "libtorch")]
    &calm_model::T5_LOADER,
    #[cfg(feature = "libtorch")]
    &calm_model::LLAMA_LOADER,
];

/// What loads the checkpoint in `directory`, by the type in its `config.json`.
///
/// # Errors
/// The file cannot be read, or no engine of this kind executes such a model.
pub(crate) fn loader(directory: &Path, engine: EngineKind) -> anyhow::Result<&'static Loader> {
    let model_type = model_type(directory)?;
    let of_engine = || LOADERS.iter().copied().filter(|loader| loader.engine == engine);
    if of_engine().next().is_none() {
        bail!("this program was built without {0}; build it with --features {0}", engine.name());
    }
    let found = of_engine().find(|loader| loader.model_types.contains(&model_type.as_str()));
    found.with_context(|| {
        let known: Vec<&str> = of_engine().flat_map(|loader| loader.model_types).copied().collect();
        format!(
            "{}: the {} engine has no model of the type `{model_type}`: there are {}",
            directory.display(),
            engine.name(),
            known.join(", ")
        )
    })
}
