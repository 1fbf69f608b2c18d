//! The tensors of a checkpoint, left in the mapped files until they are packed, or made from random numbers.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use calm_checkpoint::init::{Parameter, parameters};
use calm_checkpoint::{
    Error as CheckpointError, MODEL_STEM, T5Config, WeightType, files_of, is_known_leftover, map_file,
};
use half::f16;
use memmap2::Mmap;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, SafeTensors};

use crate::Error;
use crate::elementwise::{dot, dot_rounded, dot_stored};
use crate::simd::Simd;

/// All tensors of a checkpoint.
pub struct Weights {
    tensors: BTreeMap<String, (Vec<usize>, Stored)>,
    files: Vec<Arc<Mmap>>,
    taken: RefCell<BTreeSet<String>>,
}

/// A matrix as it is stored, [rows, columns]; a vector is one row.
#[derive(Clone)]
pub(crate) struct Stored {
    numbers: Numbers,
    rows: usize,
    columns: usize,
}

#[derive(Clone)]
enum Numbers {
    Owned(Arc<[f32]>),
    /// The numbers are bytes from `start` on in a file.
    Mapped {
        file: Arc<Mmap>,
        start: usize,
        dtype: Dtype,
    },
}

impl Weights {
    /// Maps the weight files of a checkpoint.
    ///
    /// # Errors
    /// Fails if there are no weight files, or if one is invalid or holds a type that weights cannot have.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let (mut tensors, mut files) = (BTreeMap::new(), Vec::new());
        for path in files_of(dir, MODEL_STEM)? {
            let file = Arc::new(map_file(&path)?);
            let header = SafeTensors::deserialize(&file)
                .map_err(|source| CheckpointError::Safetensors { path: path.clone(), source })?;
            for (name, view) in header.iter() {
                let dtype = view.dtype();
                if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                    let (name, found) = (name.to_owned(), format!("{dtype:?}"));
                    return Err(CheckpointError::TensorType { name, found }.into());
                }
                let shape = view.shape().to_vec();
                let start = view.data().as_ptr().addr() - file.as_ptr().addr();
                let numbers = Numbers::Mapped { file: Arc::clone(&file), start, dtype };
                tensors.insert(name.to_owned(), (shape.clone(), Stored::new(numbers, &shape)));
            }
            files.push(file);
        }
        Ok(Weights { tensors, files, taken: RefCell::default() })
    }

    /// Makes the weights of an untrained network.
    pub fn random(config: &T5Config, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let tensors = parameters(config).into_iter().map(|Parameter { name, shape, deviation }| {
            let shape: Vec<usize> = shape.into_iter().map(|n| n as usize).collect();
            let mut numbers = vec![1.0; shape.iter().product()];
            if let Some(deviation) = deviation {
                numbers.iter_mut().for_each(|x| *x = (normal(&mut random) * deviation) as f32);
            }
            (name, (shape.clone(), Stored::new(Numbers::Owned(numbers.into()), &shape)))
        });
        Weights { tensors: tensors.collect(), files: Vec::new(), taken: RefCell::default() }
    }

    /// Writes `config.json` and `model.safetensors` in f32.
    ///
    /// # Errors
    /// Fails if a file cannot be written.
    pub fn save(&self, dir: &Path, config: &T5Config) -> Result<(), Error> {
        config.save(dir)?;
        let blobs: Vec<(&str, &[usize], Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, stored))| {
                let bytes = stored.to_vec().into_iter().flat_map(f32::to_le_bytes).collect();
                (name.as_str(), shape.as_slice(), bytes)
            })
            .collect();
        let path = dir.join(format!("{MODEL_STEM}.safetensors"));
        let invalid = |source| CheckpointError::Safetensors { path: path.clone(), source };
        let views = blobs.iter().map(|(name, shape, bytes)| {
            let view = safetensors::tensor::TensorView::new(Dtype::F32, shape.to_vec(), bytes);
            view.map(|view| (*name, view)).map_err(invalid)
        });
        let views = views.collect::<Result<Vec<_>, _>>()?;
        // transformers refuses files whose metadata lacks the format.
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        let write =
            |path: &Path| safetensors::serialize_to_file(views, Some(metadata), path).map_err(invalid);
        Ok(calm_files::write_by(&path, write)?)
    }

    /// Returns the tensor of this name.
    pub(crate) fn tensor(&self, name: &str, expected: &[i64]) -> Result<Stored, Error> {
        self.optional_tensor(name, expected)?.ok_or_else(|| {
            CheckpointError::MissingTensor { name: name.to_owned(), expected: expected.to_vec() }.into()
        })
    }

    /// Returns the tensor of this name, if the checkpoint has it.
    pub(crate) fn optional_tensor(&self, name: &str, expected: &[i64]) -> Result<Option<Stored>, Error> {
        let Some((shape, stored)) = self.tensors.get(name) else { return Ok(None) };
        let found: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        if found != expected {
            let (name, expected) = (name.to_owned(), expected.to_vec());
            return Err(CheckpointError::TensorShape { name, expected, found }.into());
        }
        self.taken.borrow_mut().insert(name.to_owned());
        Ok(Some(stored.clone()))
    }

    /// Tells the system that what was read of the mapped files so far need not stay in memory.
    #[cfg(unix)]
    #[allow(unsafe_code)]
    pub(crate) fn release(&self) {
        for file in &self.files {
            // SAFETY: the map is of a file and read-only; its pages come back with the same bytes when they
            // are read again.
            let advised = unsafe { file.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            // It is no reason to fail if memory is not given back.
            drop(advised);
        }
    }

    #[cfg(not(unix))]
    pub(crate) fn release(&self) {}

    /// Whether matrices in memory are not what the file has, among those that were asked for.
    pub(crate) fn are_rounded_by(&self, weight_type: WeightType) -> bool {
        let taken = self.taken.borrow();
        let mut matrices =
            self.tensors.iter().filter(|(name, (shape, _))| taken.contains(*name) && shape.len() > 1);
        match weight_type {
            WeightType::F32 => false,
            WeightType::Bf16 => matrices.any(|(_, (_, stored))| !stored.is_bf16()),
            WeightType::Int8 => true,
        }
    }

    /// Lists the names that nobody asked for, except those that old checkpoints are known to have.
    pub(crate) fn unexpected(&self) -> Vec<String> {
        let taken = self.taken.borrow();
        let unused = self.tensors.keys().filter(|name| !taken.contains(*name) && !is_known_leftover(name));
        unused.cloned().collect()
    }
}

impl Stored {
    fn new(numbers: Numbers, shape: &[usize]) -> Self {
        let columns = shape.last().copied().unwrap_or(1);
        Stored { numbers, rows: shape.iter().product::<usize>() / columns.max(1), columns }
    }

    #[cfg(test)]
    pub(crate) fn from_rows(numbers: Vec<f32>, columns: usize) -> Self {
        let shape = [numbers.len() / columns, columns];
        Stored::new(Numbers::Owned(numbers.into()), &shape)
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Returns only the first `rows` rows.
    pub(crate) fn first_rows(mut self, rows: usize) -> Self {
        self.rows = self.rows.min(rows);
        self
    }

    /// Whether the numbers are stored as bf16.
    pub(crate) fn is_bf16(&self) -> bool {
        matches!(self.numbers, Numbers::Mapped { dtype: Dtype::BF16, .. })
    }

    /// Returns one row as f32: [columns]
    #[inline(always)]
    pub(crate) fn read_row(&self, row: usize, to: &mut [f32]) {
        let width = self.columns;
        match &self.numbers {
            Numbers::Owned(numbers) => to.copy_from_slice(&numbers[row * width..][..width]),
            Numbers::Mapped { file, start, dtype } => {
                let bytes = |size: usize| &file[start + row * width * size..][..width * size];
                match dtype {
                    Dtype::F32 => read(to, bytes(4), f32::from_le_bytes),
                    Dtype::BF16 => read(to, bytes(2), widen),
                    _ => read(to, bytes(2), |bits| f16::from_le_bytes(bits).to_f32()),
                }
            }
        }
    }

    /// Reads one row, or zeros for a row below the last: [columns]
    pub(crate) fn read_row_or_zeros(&self, row: usize, to: &mut [f32]) {
        if row < self.rows { self.read_row(row, to) } else { to.fill(0.0) }
    }

    /// Computes the product of one row with x [columns], added up as [`dot`] does. The caller runs with the
    /// instructions of `S`.
    #[inline(always)]
    pub(crate) fn dot_row<S: Simd>(&self, row: usize, x: &[f32]) -> f32 {
        let width = self.columns;
        match &self.numbers {
            Numbers::Owned(numbers) => dot(x, &numbers[row * width..][..width]),
            Numbers::Mapped { file, start, dtype } => {
                let bytes = |size: usize| &file[start + row * width * size..][..width * size];
                match dtype {
                    Dtype::F32 => dot_stored::<S, 4>(x, bytes(4).as_chunks().0, f32::from_le_bytes),
                    Dtype::BF16 => dot_stored::<S, 2>(x, bytes(2).as_chunks().0, widen),
                    _ => {
                        let mut numbers = vec![0.0; width];
                        self.read_row(row, &mut numbers);
                        dot(x, &numbers)
                    }
                }
            }
        }
    }

    /// Computes the product of one row, times `factor` and rounded to integers of 8 bits, with x [columns].
    #[inline(always)]
    pub(crate) fn dot_rounded(&self, row: usize, factor: f32, x: &[i16]) -> i32 {
        let width = self.columns;
        match &self.numbers {
            Numbers::Owned(numbers) => dot_rounded(x, &numbers[row * width..][..width], factor, |w| w),
            Numbers::Mapped { file, start, dtype } => {
                let bytes = |size: usize| &file[start + row * width * size..][..width * size];
                match dtype {
                    Dtype::F32 => dot_rounded(x, bytes(4).as_chunks().0, factor, f32::from_le_bytes),
                    Dtype::BF16 => dot_rounded(x, bytes(2).as_chunks().0, factor, widen),
                    _ => dot_rounded(x, bytes(2).as_chunks().0, factor, |bits| {
                        f16::from_le_bytes(bits).to_f32()
                    }),
                }
            }
        }
    }

    /// Returns all numbers as f32.
    pub(crate) fn to_vec(&self) -> Vec<f32> {
        let mut numbers = vec![0.0; self.rows * self.columns];
        for (row, to) in numbers.chunks_exact_mut(self.columns).enumerate() {
            self.read_row(row, to);
        }
        numbers
    }
}

/// The number of a bf16, which is the upper half of an f32.
#[inline(always)]
fn widen(bits: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bits)) << 16)
}

#[inline(always)]
fn read<const SIZE: usize>(to: &mut [f32], bytes: &[u8], number: impl Fn([u8; SIZE]) -> f32) {
    let (numbers, _) = bytes.as_chunks::<SIZE>();
    for (to, &bytes) in to.iter_mut().zip(numbers) {
        *to = number(bytes);
    }
}

/// Draws a standard normal number (Box and Muller).
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (2.0 * std::f64::consts::PI * random.random::<f64>()).cos()
}
