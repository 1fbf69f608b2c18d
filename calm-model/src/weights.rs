//! Tensors by their names in the checkpoint: reads and writes safetensors, and checks shapes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use calm_checkpoint::{
    Error as CheckpointError, MODEL_STEM, NetworkConfig, SafetensorsFile, StoredTensor, WeightFiles, files_of,
};
use calm_gguf::TensorType;
use safetensors::Dtype;
use tch::{Device, Kind, Tensor};

use crate::Error;

/// Upper limit on the size of a tensor's entry in a safetensors header.
const HEADER_BYTES: usize = 256;

/// All tensors of a checkpoint.
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
    /// Matrices that lie below each other in memory, by their names.
    stacked: BTreeMap<Vec<String>, Tensor>,
    /// The names that were asked for, in that order: one name, or several for matrices below each other.
    requests: RefCell<Vec<Vec<String>>>,
    /// Tensors of the files that were left there.
    unexpected: Vec<String>,
    /// Identifies the files, empty for tensors that were made.
    fingerprint: String,
}

/// A place in the tree of names, such as `decoder.block.0.layer.1.EncDecAttention`.
#[derive(Clone)]
pub struct Scope<'a> {
    weights: &'a Weights,
    path: String,
}

impl Weights {
    /// Wraps tensors that are already in memory.
    pub fn new(tensors: BTreeMap<String, Tensor>) -> Self {
        Weights {
            tensors,
            stacked: BTreeMap::new(),
            requests: RefCell::default(),
            unexpected: Vec::new(),
            fingerprint: String::new(),
        }
    }

    /// Adds stacked matrices, which a network that wants these names below each other gets without a copy.
    #[must_use]
    pub fn with_stacked(mut self, stacked: BTreeMap<Vec<String>, Tensor>) -> Self {
        self.stacked = stacked;
        self
    }

    /// Reads the weights of a checkpoint that its configuration asks for onto `device`, in the types they are
    /// stored in.
    ///
    /// # Errors
    /// Fails as [`WeightFiles`] does.
    pub fn load(dir: &Path, config: &dyn NetworkConfig, device: Device) -> Result<Self, Error> {
        let files = WeightFiles::open(dir, config)?;
        let mut tensors = BTreeMap::new();
        for name in files.names() {
            if let Some(StoredTensor { tensor_type, shape, bytes }) = files.read(name)? {
                tensors.insert(name.to_owned(), stored_tensor(name, tensor_type, &shape, &bytes, device)?);
            }
        }
        let unexpected = files.unexpected().to_vec();
        Ok(Weights { unexpected, fingerprint: files.fingerprint()?, ..Weights::new(tensors) })
    }

    /// Returns the root of the tree of names.
    pub fn root(&self) -> Scope<'_> {
        Scope { weights: self, path: String::new() }
    }

    /// Whether there is a tensor of this full name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Lists what was asked for, in that order and each only once.
    ///
    /// An entry is one name, or several that were asked for as matrices below each other.
    pub fn requests(&self) -> Vec<Vec<String>> {
        let mut seen = BTreeSet::new();
        let requests = self.requests.borrow();
        requests.iter().filter(|names| seen.insert(names.as_slice())).cloned().collect()
    }

    /// Lists the tensors of a checkpoint that have nothing to do with the network, and were not read.
    pub fn unexpected(&self) -> &[String] {
        &self.unexpected
    }

    /// Identifies the checkpoint that the weights were read from; empty for others.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Lists all tensors with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Makes other tensors of the same names, such as a differentiable cast of each.
    pub fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        let tensors = self.tensors.iter().map(|(name, tensor)| (name.clone(), f(tensor)));
        Weights {
            unexpected: self.unexpected.clone(),
            fingerprint: self.fingerprint.clone(),
            ..Weights::new(tensors.collect())
        }
    }

    /// Returns the tensor of this full name, without a note that it was asked for.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    fn get_checked(&self, name: &str, shape: &[i64]) -> Result<Tensor, Error> {
        let (name, expected) = (name.to_owned(), shape.to_vec());
        match self.get(&name) {
            Some(tensor) if tensor.size() == shape => Ok(tensor.shallow_clone()),
            Some(tensor) => Err(CheckpointError::TensorShape { name, expected, found: tensor.size() }.into()),
            None => {
                let found = self.tensors.keys().cloned().collect();
                Err(CheckpointError::MissingTensor { name, expected, found }.into())
            }
        }
    }

    /// Writes the weights in the given type into a checkpoint directory.
    ///
    /// Each file has at most `max_file_bytes`. The layout is that of [`write_shards`].
    ///
    /// # Errors
    /// Fails if a file cannot be written.
    pub fn save(&self, dir: &Path, kind: Kind, max_file_bytes: usize) -> Result<(), Error> {
        let tensors = self.iter().map(|(name, tensor)| (name.to_owned(), tensor.to_kind(kind)));
        write_shards(dir, MODEL_STEM, tensors, max_file_bytes)
    }
}

impl<'a> Scope<'a> {
    /// Goes one step down the tree.
    pub fn enter(&self, name: impl std::fmt::Display) -> Scope<'a> {
        Scope { weights: self.weights, path: self.full_name(&name.to_string()) }
    }

    /// Returns the tensor `name` below this place.
    ///
    /// # Errors
    /// Fails if it is missing or has another shape.
    pub fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, Error> {
        let name = self.full_name(name);
        let tensor = self.weights.get_checked(&name, shape)?;
        self.weights.requests.borrow_mut().push(vec![name]);
        Ok(tensor)
    }

    /// Stacks matrices of one shape below each other: `names.len()` of [rows, columns] as [names.len() *
    /// rows, columns].
    ///
    /// # Errors
    /// Fails if one of them is missing or has another shape.
    pub fn stacked(&self, names: &[&str], shape: [i64; 2]) -> Result<Tensor, Error> {
        let names: Vec<String> = names.iter().map(|name| self.full_name(name)).collect();
        let expected = [names.len() as i64 * shape[0], shape[1]];
        let tensor = match self.weights.stacked.get(&names) {
            Some(stacked) if stacked.size() == expected => stacked.shallow_clone(),
            _ => {
                let parts = names.iter().map(|name| self.weights.get_checked(name, &shape));
                Tensor::cat(&parts.collect::<Result<Vec<_>, _>>()?, 0)
            }
        };
        self.weights.requests.borrow_mut().push(names);
        Ok(tensor)
    }

    /// Returns the tensor `name`, if the checkpoint has it.
    ///
    /// # Errors
    /// Fails if it has another shape.
    pub fn optional_tensor(&self, name: &str, shape: &[i64]) -> Result<Option<Tensor>, Error> {
        if self.weights.contains(&self.full_name(name)) {
            self.tensor(name, shape).map(Some)
        } else {
            Ok(None)
        }
    }

    fn full_name(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// Writes tensors of any type as one safetensors file, atomically.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write_safetensors(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, Tensor)>,
) -> Result<(), Error> {
    let mut blobs = Vec::new();
    for (name, tensor) in tensors {
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        let shape = tensor.size().iter().map(|&n| n as usize).collect::<Vec<_>>();
        let (dtype, width) = stored_type(tensor.kind(), &name)?;
        let mut bytes = vec![0; tensor.numel() * width];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        blobs.push((name, dtype, shape, bytes));
    }
    let views = blobs
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes)
                .map_err(|source| CheckpointError::Safetensors { path: path.to_owned(), source })?;
            Ok((name, view))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    // transformers refuses files whose metadata lacks the format, or names another one.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|source| CheckpointError::Safetensors { path: path.to_owned(), source })?;
    Ok(calm_files::write(path, &bytes).map_err(CheckpointError::from)?)
}

/// Writes tensors in the given order, in the layout of the Hugging Face hub.
///
/// Each file has at most `max_file_bytes`.
///
/// The file is `STEM.safetensors` if one is enough; otherwise there are `STEM-00001-of-0000N.safetensors` and
/// so on, with `STEM.safetensors.index.json`. A tensor that is larger by itself has a file of its own. Files
/// of the stem that an earlier call left are removed.
///
/// # Errors
/// Fails if a file cannot be written or removed.
pub fn write_shards(
    dir: &Path,
    stem: &str,
    tensors: impl IntoIterator<Item = (String, Tensor)>,
    max_file_bytes: usize,
) -> Result<(), Error> {
    let mut shards: Vec<Vec<(String, Tensor)>> = Vec::new();
    let (mut total_bytes, mut shard_bytes) = (0, 0);
    for (name, tensor) in tensors {
        let bytes = tensor.numel() * stored_type(tensor.kind(), &name)?.1 + HEADER_BYTES;
        total_bytes += bytes - HEADER_BYTES;
        match shards.last_mut() {
            Some(shard) if shard_bytes + bytes <= max_file_bytes => shard.push((name, tensor)),
            _ => {
                shards.push(vec![(name, tensor)]);
                shard_bytes = HEADER_BYTES;
            }
        }
        shard_bytes += bytes;
    }
    let count = shards.len();
    let single = format!("{stem}.safetensors");
    let index = format!("{stem}.safetensors.index.json");
    let mut written = BTreeSet::new();
    let mut weight_map = BTreeMap::new();
    for (number, shard) in (1..).zip(shards) {
        let file =
            if count == 1 { single.clone() } else { format!("{stem}-{number:05}-of-{count:05}.safetensors") };
        weight_map.extend(shard.iter().map(|(name, _)| (name.clone(), file.clone())));
        write_safetensors(&dir.join(&file), shard)?;
        written.insert(file);
    }
    if count > 1 {
        let json = serde_json::json!({ "metadata": { "total_size": total_bytes }, "weight_map": weight_map });
        calm_files::write_json(&dir.join(&index), &json).map_err(CheckpointError::from)?;
        written.insert(index.clone());
    }
    let is_of_stem = |name: &str| {
        name == single
            || name == index
            || name.starts_with(&format!("{stem}-")) && name.ends_with(".safetensors")
    };
    let failed = |source| CheckpointError::from(calm_files::Error::write(dir)(source));
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_str().is_some_and(|name| is_of_stem(name) && !written.contains(name)) {
            std::fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Reads every tensor that [`write_shards`] wrote under a stem.
///
/// # Errors
/// Fails if a file is missing or invalid, or holds a type that libtorch does not have.
pub fn read_shards(dir: &Path, stem: &str, device: Device) -> Result<BTreeMap<String, Tensor>, Error> {
    let mut tensors = BTreeMap::new();
    for path in files_of(dir, stem)? {
        tensors.append(&mut read_safetensors(&path, device)?);
    }
    Ok(tensors)
}

/// Reads every tensor of a safetensors file.
///
/// # Errors
/// Fails if the file is missing or invalid, or holds a type that libtorch does not have.
pub fn read_safetensors(path: &Path, device: Device) -> Result<BTreeMap<String, Tensor>, Error> {
    let file = SafetensorsFile::open(path)?;
    let tensors = file.tensors().map(|(name, info)| {
        let tensor = to_tensor(&name, info.dtype, &info.shape, &file.read(info)?, device)?;
        Ok((name, tensor))
    });
    tensors.collect()
}

/// A tensor as a checkpoint stores it. Blocks become numbers of 32 bits.
fn stored_tensor(
    name: &str,
    tensor_type: TensorType,
    shape: &[usize],
    bytes: &[u8],
    device: Device,
) -> Result<Tensor, Error> {
    let dtype = match tensor_type {
        TensorType::F32 => Dtype::F32,
        TensorType::F16 => Dtype::F16,
        TensorType::Bf16 => Dtype::BF16,
        _ => {
            let mut numbers = vec![0.0_f32; shape.iter().product()];
            tensor_type.dequantise(bytes, &mut numbers);
            let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
            return Ok(Tensor::from_slice(&numbers).view(&shape[..]).to_device(device));
        }
    };
    to_tensor(name, dtype, shape, bytes, device)
}

fn to_tensor(
    name: &str,
    dtype: Dtype,
    shape: &[usize],
    bytes: &[u8],
    device: Device,
) -> Result<Tensor, Error> {
    let kind = match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        other => {
            let (name, found) = (name.to_owned(), format!("{other:?}"));
            return Err(CheckpointError::TensorType { name, found }.into());
        }
    };
    let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
    Ok(Tensor::f_from_data_size(bytes, &shape, kind)?.to_device(device))
}

fn stored_type(kind: Kind, name: &str) -> Result<(Dtype, usize), Error> {
    match kind {
        Kind::Float => Ok((Dtype::F32, 4)),
        Kind::Half => Ok((Dtype::F16, 2)),
        Kind::BFloat16 => Ok((Dtype::BF16, 2)),
        Kind::Int64 => Ok((Dtype::I64, 8)),
        other => {
            Err(CheckpointError::TensorType { name: name.to_owned(), found: format!("{other:?}") }.into())
        }
    }
}
