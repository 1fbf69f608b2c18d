//! The tensors of a checkpoint, read from its files when they are packed, or made from random numbers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use calm_checkpoint::{
    Error as CheckpointError, MODEL_STEM, NetworkConfig, Parameter, StoredTensor, WeightFiles, WeightType,
};
use calm_core::{BackboneShape, ExitHeads, Token};
use calm_gguf::TensorType;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;

use crate::Error;
use crate::blocks::Blocks;
use crate::elementwise::{dot, dot_rounded, dot_stored};
use crate::linear::Packing;
use crate::simd::Simd;

/// All tensors of a checkpoint.
pub struct Weights(Source);

enum Source {
    /// Read when they are asked for.
    Files(WeightFiles),
    /// In memory, with their shapes.
    Random(BTreeMap<String, (Vec<usize>, Stored)>),
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
    Floats(Arc<[f32]>),
    /// As in the file, which keeps narrow types narrow, or in blocks.
    Bytes {
        bytes: Arc<Vec<u8>>,
        tensor_type: TensorType,
    },
}

/// A table of vectors as it lies in memory, an embedding or a head: [rows, columns]
#[derive(Clone)]
pub(crate) enum Table {
    /// As it is stored.
    Rows(Stored),
    /// Blocks, packed for products.
    Blocks(Arc<Blocks>),
}

impl Table {
    pub(crate) fn new(stored: Stored, packing: Packing) -> Self {
        let blocks = if packing == Packing::AsStored { stored.blocks() } else { None };
        blocks.map_or(Table::Rows(stored), |blocks| Table::Blocks(Arc::new(blocks)))
    }

    pub(crate) fn rows(&self) -> usize {
        match self {
            Table::Rows(stored) => stored.rows,
            Table::Blocks(blocks) => blocks.outputs(),
        }
    }

    /// Returns one row as f32: [columns]
    pub(crate) fn read_row(&self, row: usize, to: &mut [f32]) {
        match self {
            Table::Rows(stored) => stored.read_row(row, to),
            Table::Blocks(blocks) => blocks.read_row(row, to),
        }
    }
}

impl Weights {
    /// Opens the weight files of a checkpoint.
    ///
    /// # Errors
    /// Fails as [`WeightFiles::open`] does.
    pub fn load(dir: &Path, config: &dyn NetworkConfig) -> Result<Self, Error> {
        Ok(Weights(Source::Files(WeightFiles::open(dir, config)?)))
    }

    /// Makes the weights of an untrained network.
    pub fn random(config: &dyn NetworkConfig, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let tensors = config.parameters().into_iter().map(|Parameter { name, shape, deviation }| {
            let shape: Vec<usize> = shape.into_iter().map(|n| n as usize).collect();
            let mut numbers = vec![1.0; shape.iter().product()];
            if let Some(deviation) = deviation {
                numbers.iter_mut().for_each(|x| *x = (normal(&mut random) * deviation) as f32);
            }
            (name, (shape.clone(), Stored::new(Numbers::Floats(numbers.into()), &shape)))
        });
        Weights(Source::Random(tensors.collect()))
    }

    /// Writes `config.json` and `model.safetensors` in f32.
    ///
    /// # Errors
    /// Fails if a file cannot be read or written.
    pub fn save(&self, dir: &Path, config: &dyn NetworkConfig) -> Result<(), Error> {
        config.save(dir)?;
        let mut blobs: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for name in self.names() {
            let Some((shape, stored)) = self.find(&name)? else { continue };
            let bytes = stored.to_vec().into_iter().flat_map(f32::to_le_bytes).collect();
            blobs.push((name, shape, bytes));
        }
        let path = dir.join(format!("{MODEL_STEM}.safetensors"));
        let invalid = |source| CheckpointError::Safetensors { path: path.clone(), source };
        let views = blobs.iter().map(|(name, shape, bytes)| {
            let view = safetensors::tensor::TensorView::new(Dtype::F32, shape.to_vec(), bytes);
            view.map(|view| (name.as_str(), view)).map_err(invalid)
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
            let (name, expected, found) = (name.to_owned(), expected.to_vec(), self.names());
            CheckpointError::MissingTensor { name, expected, found }.into()
        })
    }

    /// Returns the tensor of this name, if the checkpoint has it.
    pub(crate) fn optional_tensor(&self, name: &str, expected: &[i64]) -> Result<Option<Stored>, Error> {
        let Some((shape, stored)) = self.find(name)? else { return Ok(None) };
        let found: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        if found != expected {
            let (name, expected) = (name.to_owned(), expected.to_vec());
            return Err(CheckpointError::TensorShape { name, expected, found }.into());
        }
        Ok(Some(stored))
    }

    /// Computes the fingerprint of the files that the weights were read from, which is empty for others.
    pub(crate) fn fingerprint(&self) -> Result<String, Error> {
        match &self.0 {
            Source::Files(files) => Ok(files.fingerprint()?),
            Source::Random(_) => Ok(String::new()),
        }
    }

    /// Reads the exit heads beside the files; there are none beside others.
    pub(crate) fn exit_heads(&self, shape: &BackboneShape) -> Result<Option<ExitHeads>, Error> {
        match &self.0 {
            Source::Files(files) => Ok(files.exit_heads(shape)?),
            Source::Random(_) => Ok(None),
        }
    }

    /// Whether matrices in memory are not what the files have.
    pub(crate) fn are_rounded_by(&self, packing: Packing) -> bool {
        match (packing, &self.0) {
            (Packing::As(WeightType::F32) | Packing::AsStored, _) => false,
            (Packing::As(WeightType::Int8), _) | (Packing::As(WeightType::Bf16), Source::Random(_)) => true,
            (Packing::As(WeightType::Bf16), Source::Files(files)) => {
                files.matrix_types().any(|tensor_type| tensor_type != TensorType::Bf16)
            }
        }
    }

    /// What a matrix is in memory if it stays what it is.
    pub(crate) fn type_in_memory(&self, name: &str) -> &'static str {
        let stored = match &self.0 {
            Source::Files(files) => files.tensor_type(name),
            Source::Random(_) => None,
        };
        match stored {
            Some(TensorType::Bf16) => WeightType::Bf16.name(),
            Some(tensor_type) if tensor_type.block_len() > 1 => tensor_type.name(),
            _ => WeightType::F32.name(),
        }
    }

    /// Lists the tensors of the files that the network has no use for.
    pub(crate) fn unexpected(&self) -> Vec<String> {
        match &self.0 {
            Source::Files(files) => files.unexpected().to_vec(),
            Source::Random(_) => Vec::new(),
        }
    }

    fn names(&self) -> Vec<String> {
        match &self.0 {
            Source::Files(files) => files.names().map(str::to_owned).collect(),
            Source::Random(tensors) => tensors.keys().cloned().collect(),
        }
    }

    /// Returns a tensor and its shape.
    fn find(&self, name: &str) -> Result<Option<(Vec<usize>, Stored)>, Error> {
        match &self.0 {
            Source::Files(files) => {
                Ok(files.read(name)?.map(|StoredTensor { tensor_type, shape, bytes }| {
                    let numbers = Numbers::Bytes { bytes: Arc::new(bytes), tensor_type };
                    (shape.clone(), Stored::new(numbers, &shape))
                }))
            }
            Source::Random(tensors) => Ok(tensors.get(name).cloned()),
        }
    }
}

impl Stored {
    fn new(numbers: Numbers, shape: &[usize]) -> Self {
        let columns = shape.last().copied().unwrap_or(1);
        Stored { numbers, rows: shape.iter().product::<usize>() / columns.max(1), columns }
    }

    /// A matrix of blocks, whose rows lie one after the other in `bytes`.
    #[cfg(test)]
    pub(crate) fn from_blocks(tensor_type: TensorType, bytes: Vec<u8>, columns: usize) -> Self {
        let shape = [bytes.len() / tensor_type.row_bytes(columns), columns];
        Stored::new(Numbers::Bytes { bytes: Arc::new(bytes), tensor_type }, &shape)
    }

    #[cfg(test)]
    pub(crate) fn from_rows(numbers: Vec<f32>, columns: usize) -> Self {
        let shape = [numbers.len() / columns, columns];
        Stored::new(Numbers::Floats(numbers.into()), &shape)
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

    /// Returns some rows, in this order.
    pub(crate) fn select(&self, rows: &[Token]) -> Self {
        let width = self.columns;
        let numbers = match &self.numbers {
            Numbers::Floats(numbers) => Numbers::Floats(
                rows.iter().flat_map(|&row| &numbers[row as usize * width..][..width]).copied().collect(),
            ),
            Numbers::Bytes { bytes, tensor_type } => {
                let size = tensor_type.row_bytes(width);
                let bytes =
                    rows.iter().flat_map(|&row| &bytes[row as usize * size..][..size]).copied().collect();
                Numbers::Bytes { bytes: Arc::new(bytes), tensor_type: *tensor_type }
            }
        };
        Stored { numbers, rows: rows.len(), columns: width }
    }

    /// The matrix in blocks, if it is stored in blocks.
    pub(crate) fn blocks(&self) -> Option<Blocks> {
        match &self.numbers {
            Numbers::Bytes { bytes, tensor_type } => {
                let rows = &bytes[..self.rows * tensor_type.row_bytes(self.columns)];
                Blocks::pack(*tensor_type, self.columns, rows)
            }
            _ => None,
        }
    }

    /// Whether the numbers are stored as bf16.
    pub(crate) fn is_bf16(&self) -> bool {
        matches!(self.numbers, Numbers::Bytes { tensor_type: TensorType::Bf16, .. })
    }

    /// Returns one row as f32: [columns]
    #[inline(always)]
    pub(crate) fn read_row(&self, row: usize, to: &mut [f32]) {
        let width = self.columns;
        match &self.numbers {
            Numbers::Floats(numbers) => to.copy_from_slice(&numbers[row * width..][..width]),
            Numbers::Bytes { bytes, tensor_type } => {
                let size = tensor_type.row_bytes(width);
                tensor_type.dequantise(&bytes[row * size..][..size], to);
            }
        }
    }

    /// Computes the product of one row with x [columns], added up as [`dot`] does. The caller runs with the
    /// instructions of `S`.
    #[inline(always)]
    pub(crate) fn dot_row<S: Simd>(&self, row: usize, x: &[f32]) -> f32 {
        let width = self.columns;
        match &self.numbers {
            Numbers::Floats(numbers) => dot(x, &numbers[row * width..][..width]),
            Numbers::Bytes { bytes, tensor_type } => {
                let bytes = |size: usize| &bytes[row * width * size..][..width * size];
                match tensor_type {
                    TensorType::F32 => dot_stored::<S, 4>(x, bytes(4).as_chunks().0, f32::from_le_bytes),
                    TensorType::Bf16 => dot_stored::<S, 2>(x, bytes(2).as_chunks().0, widen),
                    _ => dot(x, &self.row(row)),
                }
            }
        }
    }

    /// Computes the product of one row, times `factor` and rounded to integers of 8 bits, with x [columns].
    #[inline(always)]
    pub(crate) fn dot_rounded(&self, row: usize, factor: f32, x: &[i16]) -> i32 {
        let width = self.columns;
        match &self.numbers {
            Numbers::Floats(numbers) => dot_rounded(x, &numbers[row * width..][..width], factor, |w| w),
            Numbers::Bytes { bytes, tensor_type } => {
                let bytes = |size: usize| &bytes[row * width * size..][..width * size];
                match tensor_type {
                    TensorType::F32 => dot_rounded(x, bytes(4).as_chunks().0, factor, f32::from_le_bytes),
                    TensorType::Bf16 => dot_rounded(x, bytes(2).as_chunks().0, factor, widen),
                    _ => dot_rounded(x, &self.row(row), factor, |weight| weight),
                }
            }
        }
    }

    fn row(&self, row: usize) -> Vec<f32> {
        let mut numbers = vec![0.0; self.columns];
        self.read_row(row, &mut numbers);
        numbers
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

/// Draws a standard normal number (Box and Muller).
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (2.0 * std::f64::consts::PI * random.random::<f64>()).cos()
}
