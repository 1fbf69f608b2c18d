//! The resumable state of a run.
//!
//! It is a directory that appears complete or not at all, so that a kill leaves the old or the new one. If
//! the newest one is damaged all the same, an older one counts.
//! Dropout, order of the data and sampled exits are functions of (seed, step), so that besides tensors there
//! are few numbers to remember.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use calm_model::{read_shards, write_shards};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::parameters::is_finite;
use crate::{Error, MadeWith};

const STEM: &str = "state";
const RUN: &str = "run.json";

/// The checkpoints that a run's directory has a place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The newest one, from which the run continues: parameters and all that the optimiser remembers.
    Newest,
    /// The one with the lowest validation loss so far: only the parameters.
    Best,
}

/// The numbers in a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Number of steps done.
    pub step: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Fingerprint of the training examples and of the batches that they are divided into.
    pub data: String,
    /// Number of passes over the data done.
    pub epochs: f64,
    /// Number of target tokens learned from.
    pub target_tokens: u64,
    /// The lowest validation loss so far.
    pub best_loss: Option<f64>,
    /// Number of validations since the lowest loss.
    pub validations_since_best: u64,
    /// What the steps were made with; `None` in checkpoints of earlier versions.
    #[serde(default)]
    pub made_with: Option<MadeWith>,
}

/// A checkpoint in the processor's memory.
pub struct Checkpoint {
    /// The directory that it was read from.
    pub path: PathBuf,
    /// The numbers.
    pub state: RunState,
    /// The tensors by their names, all of them finite.
    pub tensors: BTreeMap<String, Tensor>,
    /// Descriptions of newer ones that are damaged.
    pub damaged: Vec<String>,
}

/// Finds the directory of a slot's checkpoint, if there is one.
///
/// A kill may leave two; the later one counts.
pub fn find(dir: &Path, slot: Slot) -> Option<PathBuf> {
    all(dir, slot).pop().map(|(_, path)| path)
}

/// Reads the newest of a slot's checkpoints that is complete and has finite numbers alone.
///
/// # Errors
/// Fails with what is wrong with the newest one if there are some, but none is usable.
pub fn load_newest(dir: &Path, slot: Slot) -> Result<Option<Checkpoint>, Error> {
    let mut errors = Vec::new();
    for (_, path) in all(dir, slot).into_iter().rev() {
        match load(&path) {
            Ok((state, tensors)) => {
                let damaged = errors.iter().map(ToString::to_string).collect();
                return Ok(Some(Checkpoint { path, state, tensors, damaged }));
            }
            Err(error) => errors.push(error),
        }
    }
    errors.into_iter().next().map_or(Ok(None), Err)
}

/// Returns the name of a tensor that has an infinite number or one that is none, if there is such a tensor.
pub(crate) fn not_finite(tensors: &BTreeMap<String, Tensor>) -> Option<&str> {
    tensors.iter().find(|(_, tensor)| !is_finite(tensor)).map(|(name, _)| name.as_str())
}

/// Keeps other processes out of a directory of checkpoints until the file is closed, at the latest when this
/// process ends.
///
/// # Errors
/// Fails if another process is in there, or if the file cannot be made.
pub(crate) fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(calm_files::Error::write(&path))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path: dir.to_owned() }),
        // Some file systems of networks have no locks.
        Err(TryLockError::Error(error)) if error.kind() != ErrorKind::Unsupported => {
            Err(calm_files::Error::write(&path)(error).into())
        }
        _ => Ok(file),
    }
}

/// Writes tensors and numbers, and removes the slot's earlier checkpoint.
///
/// Each file has at most `max_file_bytes`.
///
/// # Errors
/// Fails if a file cannot be written or removed.
pub fn save(
    dir: &Path,
    slot: Slot,
    state: &RunState,
    tensors: impl IntoIterator<Item = (String, Tensor)>,
    max_file_bytes: usize,
) -> Result<(), Error> {
    let path = dir.join(format!("{}-{:08}", slot.prefix(), state.step));
    let partial = path.with_extension("partial");
    remove(&partial)?;
    std::fs::create_dir_all(&partial).map_err(calm_files::Error::write(&partial))?;
    write_shards(&partial, STEM, tensors, max_file_bytes)?;
    calm_files::write_json(&partial.join(RUN), state)?;
    // A finished run that is started again writes the checkpoint that it started from.
    remove(&path)?;
    calm_files::rename(&partial, &path)?;
    for (step, path) in all(dir, slot) {
        if step != state.step {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Reads a checkpoint directory into the processor's memory.
///
/// # Errors
/// Fails if a file is missing or damaged, or if a number is infinite or none.
pub fn load(path: &Path) -> Result<(RunState, BTreeMap<String, Tensor>), Error> {
    let damaged = |reason: String| Error::DamagedCheckpoint { path: path.to_owned(), reason };
    let state = calm_files::read_json(&path.join(RUN)).map_err(|error| damaged(error.to_string()))?;
    let tensors = read_shards(path, STEM, Device::Cpu).map_err(|error| damaged(error.to_string()))?;
    match not_finite(&tensors) {
        Some(name) => Err(damaged(format!("{name} is not finite"))),
        None => Ok((state, tensors)),
    }
}

impl Slot {
    fn prefix(self) -> &'static str {
        match self {
            Slot::Newest => "step",
            Slot::Best => "best",
        }
    }
}

/// Lists the directories of the slot's checkpoints by step.
fn all(dir: &Path, slot: Slot) -> Vec<(u64, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let step = name.strip_prefix(slot.prefix())?.strip_prefix('-')?.parse().ok()?;
            entry.path().is_dir().then(|| (step, entry.path()))
        })
        .collect();
    found.sort();
    found
}

fn remove(dir: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(calm_files::Error::write(dir)(error).into()),
        _ => Ok(()),
    }
}
