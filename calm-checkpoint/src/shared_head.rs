//! The output head that all exits share, as plain numbers: what training of exit heads needs of a network.

use std::path::Path;

use crate::weight_files::{StoredTensor, WeightFiles};
use crate::{Error, HEAD, load_config};

/// Which tensors the head is made of, where a checkpoint may have no head of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadParts {
    /// Name of the weight of the norm in front of the head.
    pub norm: &'static str,
    /// What the norm adds to the mean square.
    pub epsilon: f64,
    /// What a normed state is multiplied with.
    pub scale: f64,
    /// Name of the embedding that is the head of a checkpoint without one.
    pub embedding: &'static str,
}

/// The head of a network, with the norm in front of it. There is no bias and no mean.
#[derive(Debug, Clone, PartialEq)]
pub struct SharedHead {
    /// Weight of the norm, the factor on normed states included: `[d_model]`
    pub norm: Vec<f32>,
    /// What the norm adds to the mean square.
    pub epsilon: f64,
    /// The matrix: `[vocab_size, d_model]`
    pub vocabulary: Vec<f32>,
}

impl SharedHead {
    /// Reads the head of a checkpoint, a directory or a GGUF file.
    ///
    /// # Errors
    /// Fails as [`WeightFiles::open`] and [`WeightFiles::read`] do.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let config = load_config(path)?;
        let HeadParts { norm, epsilon, scale, embedding } = config.head_parts();
        let weights = WeightFiles::open(path, &*config)?;
        let numbers = |name: &str| Ok::<_, Error>(weights.read(name)?.map(to_f32));
        let missing = |name: &str| {
            let found = weights.names().map(str::to_owned).collect();
            Error::MissingTensor { name: name.to_owned(), expected: Vec::new(), found }
        };
        let norm = numbers(norm)?.ok_or_else(|| missing(norm))?;
        let head = numbers(HEAD)?;
        let vocabulary = match head {
            Some(own) => own,
            None => numbers(embedding)?.ok_or_else(|| missing(embedding))?,
        };
        let norm = norm.into_iter().map(|weight| (f64::from(weight) * scale) as f32).collect();
        Ok(Self { norm, epsilon, vocabulary })
    }
}

fn to_f32(StoredTensor { tensor_type, shape, bytes }: StoredTensor) -> Vec<f32> {
    let mut numbers = vec![0.0; shape.iter().product()];
    tensor_type.dequantise(&bytes, &mut numbers);
    numbers
}
