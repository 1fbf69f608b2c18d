//! The output folder, in which a model that is there already stays unless it is the run's own.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::config::TrainConfig;

/// Names of the files that a folder with a model has one of.
const MODEL_FILES: [&str; 3] = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"];

/// The right of a run to write its model into `output`.
pub(crate) struct Output<'a> {
    config: &'a TrainConfig,
    overwrite: bool,
}

impl<'a> Output<'a> {
    /// Checks that there is no model in `output`, or only the one that this run has written itself, unless
    /// `overwrite` permits it.
    ///
    /// # Errors
    /// Fails if there is another model, or if it cannot be read.
    pub(crate) fn new(config: &'a TrainConfig, overwrite: bool) -> Result<Self, Error> {
        let output = Output { config, overwrite };
        output.check()?;
        Ok(output)
    }

    /// Makes the folder, and checks that files can be written there.
    ///
    /// # Errors
    /// Fails if they cannot.
    pub(crate) fn create(&self) -> Result<(), Error> {
        let path = &self.config.output;
        std::fs::create_dir_all(path).map_err(calm_files::Error::write(path))?;
        let probe = path.join(".writable");
        calm_files::write(&probe, "")?;
        Ok(std::fs::remove_file(&probe).map_err(calm_files::Error::write(&probe))?)
    }

    /// Has `write` put the model there, and remembers that it is this run's.
    ///
    /// # Errors
    /// Fails if another model has appeared there meanwhile, or as `write` does.
    pub(crate) fn publish<R>(&self, write: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        self.check()?;
        self.remember(None)?;
        let result = write()?;
        self.remember(Some(calm_checkpoint::fingerprint(&self.config.output)?))?;
        Ok(result)
    }

    fn check(&self) -> Result<(), Error> {
        let path = &self.config.output;
        let has_model = MODEL_FILES.iter().any(|name| path.join(name).exists());
        if self.overwrite || !has_model || self.is_own()? {
            return Ok(());
        }
        Err(Error::OutputTaken { path: path.clone() })
    }

    /// Whether the model is the one that this run has written, or had begun to write.
    fn is_own(&self) -> Result<bool, Error> {
        let file = self.file();
        if !file.exists() {
            return Ok(false);
        }
        let published: Published = calm_files::read_json(&file)?;
        Ok(match published.fingerprint {
            Some(fingerprint) => {
                calm_checkpoint::fingerprint(&self.config.output).is_ok_and(|now| now == fingerprint)
            }
            None => published.output == real(&self.config.output),
        })
    }

    fn remember(&self, fingerprint: Option<String>) -> Result<(), Error> {
        let published = Published { output: real(&self.config.output), fingerprint };
        Ok(calm_files::write_json(&self.file(), &published)?)
    }

    fn file(&self) -> PathBuf {
        self.config.checkpoints.join("published.json")
    }
}

/// What a run remembers, in its folder of checkpoints, of the model that it wrote.
#[derive(Serialize, Deserialize)]
struct Published {
    output: PathBuf,
    /// The fingerprint of the checkpoint there; `None` while it is being written.
    fingerprint: Option<String>,
}

/// The folder behind all links, also where it or its last parts do not exist yet.
pub(crate) fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for ancestor in absolute.ancestors() {
        if let (Ok(mut real), Ok(rest)) = (ancestor.canonicalize(), absolute.strip_prefix(ancestor)) {
            for part in rest.components() {
                match part {
                    Component::ParentDir => drop(real.pop()),
                    part => real.push(part),
                }
            }
            return real;
        }
    }
    absolute
}
