//! The resumable state of a run in one file that is replaced atomically, so that a kill leaves the old or the new one.
//! Dropout, order of the data and sampled exits are functions of (seed, step), so that the step is all there is to remember
//! besides tensors.

use std::path::{Path, PathBuf};

use calm_model::{Weights, read_safetensors, write_safetensors};
use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::optimizer::Optimizer;

const STEP: &str = "train.step";
const SEED: &str = "train.seed";

/// Path of the checkpoint in a run's directory.
pub fn path(dir: &Path) -> PathBuf {
    dir.join("checkpoint.safetensors")
}

/// Writes parameters, the optimiser's state and the step.
///
/// # Errors
/// The file cannot be written.
pub fn save(
    dir: &Path,
    parameters: &Weights,
    optimizer: &Optimizer,
    seed: u64,
    step: u64,
) -> Result<(), Error> {
    let numbers = [(STEP, step), (SEED, seed)];
    let numbers = numbers.map(|(name, value)| (name.to_owned(), Tensor::from_slice(&[value as i64])));
    let tensors = parameters.iter().map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()));
    write_safetensors(&path(dir), tensors.chain(optimizer.state()).chain(numbers))?;
    Ok(())
}

/// Copies a checkpoint, if there is one, into the parameters and the optimiser, and returns its step.
///
/// # Errors
/// The file is damaged, or belongs to a run with another seed, other shapes or another optimiser.
pub fn restore(dir: &Path, parameters: &Weights, optimizer: &mut Optimizer, seed: u64) -> Result<u64, Error> {
    let path = path(dir);
    if !path.is_file() {
        return Ok(0);
    }
    let other = |reason: String| Error::OtherRun { path: path.clone(), reason };
    let mut tensors = read_safetensors(&path, Device::Cpu)?;
    let mut number = |name: &str| {
        let tensor = tensors.remove(name).filter(|tensor| tensor.kind() == Kind::Int64);
        tensor
            .map(|tensor| tensor.int64_value(&[0]) as u64)
            .ok_or_else(|| other(format!("{name} is missing")))
    };
    let (step, found_seed) = (number(STEP)?, number(SEED)?);
    if found_seed != seed {
        return Err(other(format!("its seed is {found_seed}, not {seed}")));
    }
    let _no_grad = tch::no_grad_guard();
    for (name, parameter) in parameters.iter() {
        match tensors.remove(name) {
            Some(tensor) if tensor.size() == parameter.size() => parameter.shallow_clone().copy_(&tensor),
            Some(tensor) => return Err(other(format!("{name} has the shape {:?}", tensor.size()))),
            None => return Err(other(format!("{name} is missing"))),
        }
    }
    optimizer.restore(&mut tensors, step).map_err(|error| other(error.to_string()))?;
    if let Some(name) = tensors.keys().next() {
        return Err(other(format!("it has a tensor {name}")));
    }
    Ok(step)
}
