//! The weights of a checkpoint as all engines read them: which tensor is which, and whether the files hold
//! the network that `config.json` describes.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use calm_core::{BackboneShape, ExitHeads};
use calm_gguf::{Block, TensorType};

use crate::exit_heads::read_exit_heads;
use crate::files::{MODEL_STEM, WeightMap, fingerprint_with, folder_of, weights_hash};
use crate::model_type::Naming;
use crate::network::{Expected, expected};
use crate::tensor_names::HEAD;
use crate::weight_file::{StoredInfo, WeightFile};
use crate::{Error, NetworkConfig};

/// The weights of a checkpoint that fit its configuration. Their numbers are read when they are asked for.
pub struct WeightFiles {
    /// A directory, or a GGUF file.
    path: PathBuf,
    naming: &'static Naming,
    files: Vec<WeightFile>,
    /// The tensors that the network takes, by the names that it gives them.
    tensors: BTreeMap<String, Place>,
    unexpected: Vec<String>,
    /// What reading all files once has given.
    hash: OnceCell<String>,
}

/// A tensor as it is stored.
pub struct StoredTensor {
    /// The type of its numbers: F32, F16 or BF16, or blocks in GGUF files.
    pub tensor_type: TensorType,
    /// The shape of the tensor.
    pub shape: Vec<usize>,
    /// The numbers, little-endian and in row-major order, or blocks; all numbers are finite.
    pub bytes: Vec<u8>,
}

/// Where a tensor is.
#[derive(Clone)]
struct Place {
    /// Number of the file.
    file: usize,
    info: StoredInfo,
}

impl WeightFiles {
    /// Opens the weight files of a checkpoint, a directory or a GGUF file, and compares what they hold with
    /// its configuration.
    ///
    /// # Errors
    /// Fails if `config.json` is that of another type of model; if there are no weight files, or one is
    /// damaged or contradicts another; if a tensor of the network is missing, has another shape or is of a
    /// type that weights cannot have; or if one belongs to the network and has no place in it.
    pub fn open(dir: &Path, config: &dyn NetworkConfig) -> Result<Self, Error> {
        let naming = config.naming();
        naming.check_model_type(dir)?;
        let mut weights = WeightFiles {
            path: dir.to_owned(),
            naming,
            files: WeightFile::open_all(dir)?,
            tensors: BTreeMap::new(),
            unexpected: Vec::new(),
            hash: OnceCell::new(),
        };
        weights.find_tensors()?;
        weights.choose_embeddings()?;
        weights
            .check(config)
            .map_err(|source| Error::Weights { dir: dir.to_owned(), source: source.into() })?;
        Ok(weights)
    }

    /// Lists the tensors that the network takes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Lists the tensors that have nothing to do with the network.
    pub fn unexpected(&self) -> &[String] {
        &self.unexpected
    }

    /// Returns the shape of a tensor that the network takes.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|place| place.info.shape.as_slice())
    }

    /// Returns the type in which a tensor that the network takes is stored.
    pub fn tensor_type(&self, name: &str) -> Option<TensorType> {
        self.tensors.get(name)?.info.tensor_type.as_ref().ok().copied()
    }

    /// Lists the types in which the matrices that the network takes are stored.
    pub fn matrix_types(&self) -> impl Iterator<Item = TensorType> {
        let matrices = self.tensors.values().filter(|place| place.info.shape.len() > 1);
        matrices.filter_map(|place| place.info.tensor_type.clone().ok())
    }

    /// Reads a tensor that the network takes; `None` if the checkpoint has none of this name.
    ///
    /// # Errors
    /// Fails if the file cannot be read or was cut off meanwhile, or if a number is infinite or none.
    pub fn read(&self, name: &str) -> Result<Option<StoredTensor>, Error> {
        let Some(Place { file, info }) = self.tensors.get(name) else { return Ok(None) };
        let file = &self.files[*file];
        let tensor_type = info.tensor_type.clone().map_err(|found| not_weights(name, found))?;
        let bytes = file.read(info)?;
        if let Some((index, value)) = first_not_finite(&bytes, tensor_type) {
            let (path, name) = (file.path().to_owned(), name.to_owned());
            return Err(Error::NotFinite { path, name, value, index: position(index, &info.shape) });
        }
        Ok(Some(StoredTensor { tensor_type, shape: info.shape.clone(), bytes }))
    }

    /// Computes the checkpoint's [`fingerprint`](crate::fingerprint), and makes sure that it is that of what
    /// was read.
    ///
    /// # Errors
    /// Fails if a file cannot be read, or has changed since it was opened.
    pub fn fingerprint(&self) -> Result<String, Error> {
        let fingerprint = fingerprint_with(&self.path, &self.weights_hash()?)?;
        self.files.iter().try_for_each(WeightFile::check_unchanged)?;
        Ok(fingerprint)
    }

    /// Reads the exit heads beside the backbone; `None` if there are none.
    ///
    /// # Errors
    /// Fails as [`read_exit_heads`] does.
    pub fn exit_heads(&self, shape: &BackboneShape) -> Result<Option<ExitHeads>, Error> {
        read_exit_heads(&folder_of(&self.path), shape, || self.weights_hash())
    }

    /// Computes the hash of the bytes of all weight files, once.
    fn weights_hash(&self) -> Result<String, Error> {
        if let Some(hash) = self.hash.get() {
            return Ok(hash.clone());
        }
        let hash = weights_hash(&self.path)?;
        Ok(self.hash.get_or_init(|| hash).clone())
    }

    /// Gives each tensor the name by which the network knows it.
    fn find_tensors(&mut self) -> Result<(), Error> {
        let canonical = self.naming.canonical;
        let map = WeightMap::read(&self.path, MODEL_STEM)?;
        for (number, file) in self.files.iter().enumerate() {
            for info in file.tensors(self.naming) {
                let name = info.name.clone();
                let place = Place { file: number, info };
                if let Some(other) = self.tensors.get(&name)
                    && !self.is_same(other, &place)?
                {
                    let paths = [other.file, number].map(|file| self.files[file].path().to_owned());
                    return Err(Error::Contradiction { name, paths });
                }
                self.tensors.insert(name, place);
            }
        }
        if let Some(map) = &map {
            map.check(&self.files, self.naming)?;
        }
        // Modules that share a tensor have it once, and the others' names in the notes: what
        // `safetensors.torch.save_model` does, and huggingface_hub with shards.
        let notes = self.files.iter().flat_map(WeightFile::notes);
        let aliases = notes.chain(map.iter().flat_map(WeightMap::notes));
        let aliases: Vec<_> = aliases.map(|(alias, name)| (canonical(alias), canonical(name))).collect();
        for (alias, name) in aliases {
            if let Some(place) = self.tensors.get(&name).cloned() {
                self.tensors.entry(alias).or_insert(place);
            }
        }
        Ok(())
    }

    /// Leaves of the tables of the embedding those that differ, as transformers does.
    fn choose_embeddings(&mut self) -> Result<(), Error> {
        let embeddings = self.naming.embeddings;
        let first = embeddings.iter().find_map(|name| self.tensors.get(*name)).cloned();
        let (Some(shared), Some(name_of_shared)) = (first, embeddings.first()) else { return Ok(()) };
        for &name in &embeddings[1..] {
            let Some(own) = self.tensors.get(name) else { continue };
            // A copy as the head stays, since training moves it by itself. Another name for one table does
            // not.
            let is_left_out = if name == HEAD { own.is(&shared) } else { self.is_same(own, &shared)? };
            if is_left_out {
                self.tensors.remove(name);
            }
        }
        self.tensors.insert((*name_of_shared).to_owned(), shared);
        Ok(())
    }

    /// Takes the network's tensors out of those that are there, and checks both them and the rest.
    fn check(&mut self, config: &dyn NetworkConfig) -> Result<(), Error> {
        let mut stored = std::mem::take(&mut self.tensors);
        let found: Vec<String> = stored.keys().cloned().collect();
        for Expected { name, shape, is_needed } in expected(config) {
            let Some(place) = stored.remove(&name) else {
                if is_needed {
                    return Err(Error::MissingTensor { name, expected: shape, found });
                }
                continue;
            };
            let Place { info, .. } = &place;
            if let Err(found) = &info.tensor_type {
                return Err(not_weights(&name, found.clone()));
            }
            let found: Vec<i64> = info.shape.iter().map(|&n| n as i64).collect();
            if found != shape {
                return Err(Error::TensorShape { name, expected: shape, found });
            }
            self.tensors.insert(name, place);
        }
        let unused = stored.into_keys().filter(|name| !(self.naming.is_leftover)(name));
        let (misplaced, unexpected): (Vec<_>, Vec<_>) =
            unused.partition(|name| (self.naming.is_of_network)(name));
        if !misplaced.is_empty() {
            return Err(Error::UnusedTensors { names: misplaced });
        }
        self.unexpected = unexpected;
        Ok(())
    }

    /// Whether two tensors are the same to the last bit.
    fn is_same(&self, left: &Place, right: &Place) -> Result<bool, Error> {
        if left.is(right) {
            return Ok(true);
        }
        if (&left.info.tensor_type, &left.info.shape) != (&right.info.tensor_type, &right.info.shape) {
            return Ok(false);
        }
        Ok(self.files[left.file].read(&left.info)? == self.files[right.file].read(&right.info)?)
    }
}

impl Place {
    fn is(&self, other: &Self) -> bool {
        self.file == other.file && self.info.is_at(&other.info)
    }
}

fn not_weights(name: &str, found: String) -> Error {
    Error::TensorType { name: name.to_owned(), found }
}

/// The first number that is infinite or none, and where it is.
pub(crate) fn first_not_finite(bytes: &[u8], tensor_type: TensorType) -> Option<(usize, f32)> {
    match tensor_type {
        TensorType::F32 => first_with_exponent(bytes, 0x7f80_0000, u32::from_le_bytes, f32::from_bits),
        // Enough of the number for an error: its sign, and whether it is infinite.
        TensorType::F16 => first_with_exponent(bytes, 0x7c00, u16::from_le_bytes, |bits| {
            f32::from_bits(u32::from(bits & 0x8000) << 16 | 0x7f80_0000 | u32::from(bits & 0x3ff) << 13)
        }),
        TensorType::Bf16 => first_with_exponent(bytes, 0x7f80, u16::from_le_bytes, |bits| {
            f32::from_bits(u32::from(bits) << 16)
        }),
        _ => {
            let count = bytes.len() / tensor_type.block_bytes() * tensor_type.block_len() / Block::LEN;
            (0..count).find_map(|index| {
                let Block { scales, minimum, .. } = Block::of(tensor_type, bytes, index);
                let bad = scales.into_iter().chain(minimum).find(|scale| !scale.is_finite())?;
                Some((index * Block::LEN, bad))
            })
        }
    }
}

/// Finds the first number with all bits of `exponent` set.
fn first_with_exponent<const SIZE: usize, Bits>(
    bytes: &[u8],
    exponent: Bits,
    bits: impl Fn([u8; SIZE]) -> Bits,
    number: impl Fn(Bits) -> f32,
) -> Option<(usize, f32)>
where
    Bits: Copy + PartialEq + std::ops::BitAnd<Output = Bits>,
{
    let (numbers, _) = bytes.as_chunks::<SIZE>();
    let is_bad = |&stored: &[u8; SIZE]| bits(stored) & exponent == exponent;
    // A block without a branch inside is many numbers at a time.
    const BLOCK: usize = 4096;
    let block = numbers.chunks(BLOCK).position(|block| block.iter().fold(false, |bad, x| bad | is_bad(x)))?;
    let index = block * BLOCK + numbers[block * BLOCK..].iter().position(is_bad)?;
    Some((index, number(bits(numbers[index]))))
}

/// Where the number `index` of a tensor stands in it.
pub(crate) fn position(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut position: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&size| {
            let at = index % size;
            index /= size;
            at
        })
        .collect();
    position.reverse();
    position
}
