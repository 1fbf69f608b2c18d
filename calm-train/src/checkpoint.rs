//! The resumable state of a run.
//!
//! It is a directory that appears complete or not at all, so that a kill leaves the old or the new one.
//! Dropout, order of the data and sampled exits are functions of (seed, step), so that besides tensors there
//! are few numbers to remember.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use calm_model::{read_shards, write_shards};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::Error;

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
}

/// Finds the directory of a slot's checkpoint, if there is one.
///
/// A kill may leave two; the later one counts.
pub fn find(dir: &Path, slot: Slot) -> Option<PathBuf> {
    all(dir, slot).pop().map(|(_, path)| path)
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
/// Fails if a file is missing or damaged.
pub fn load(path: &Path) -> Result<(RunState, BTreeMap<String, Tensor>), Error> {
    let file = path.join(RUN);
    Ok((calm_files::read_json(&file)?, read_shards(path, STEM, Device::Cpu)?))
}

impl Slot {
    fn prefix(self) -> &'static str {
        match self {
            Slot::Newest => "step",
            Slot::Best => "best",
        }
    }
}

/// Lists the slot's complete checkpoints by step.
fn all(dir: &Path, slot: Slot) -> Vec<(u64, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let step = name.strip_prefix(slot.prefix())?.strip_prefix('-')?.parse().ok()?;
            Some((step, entry.path()))
        })
        .collect();
    found.sort();
    found
}

fn remove(dir: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(calm_files::Error::write(dir)(error).into())
        }
        _ => Ok(()),
    }
}
