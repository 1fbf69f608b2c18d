//! One file of weights, in either format.

use std::path::Path;

use calm_gguf::{Gguf, TensorType};
use safetensors::Dtype;

use crate::gguf::{GgufNames, halves_of_pairs};
use crate::model_type::Naming;
use crate::safetensors_file::SafetensorsFile;
use crate::{Error, files};

/// An open file of weights.
pub(crate) enum WeightFile {
    Safetensors(SafetensorsFile),
    Gguf { gguf: Box<Gguf>, names: GgufNames },
}

/// What a file says of a tensor.
#[derive(Debug, Clone)]
pub(crate) struct StoredInfo {
    /// The name in the file.
    pub(crate) stored: String,
    /// The name by which the network knows the tensor.
    pub(crate) name: String,
    /// The type, or what the file calls one that weights cannot have.
    pub(crate) tensor_type: Result<TensorType, String>,
    pub(crate) shape: Vec<usize>,
    /// Where the tensor begins: what shares it is the same tensor.
    start: usize,
}

impl WeightFile {
    /// Opens the weight files of a checkpoint: those of a directory, or a GGUF file.
    pub(crate) fn open_all(path: &Path) -> Result<Vec<Self>, Error> {
        if files::is_gguf(path) {
            let gguf = Gguf::open(path)?;
            let names = GgufNames::of(&gguf)?;
            return Ok(vec![WeightFile::Gguf { gguf: Box::new(gguf), names }]);
        }
        let files = files::files_of(path, files::MODEL_STEM)?;
        files.iter().map(|path| SafetensorsFile::open(path).map(WeightFile::Safetensors)).collect()
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            WeightFile::Safetensors(file) => file.path(),
            WeightFile::Gguf { gguf, .. } => gguf.path(),
        }
    }

    /// Lists the tensors.
    pub(crate) fn tensors(&self, naming: &Naming) -> Vec<StoredInfo> {
        match self {
            WeightFile::Safetensors(file) => {
                let info = |(stored, info): (String, &safetensors::tensor::TensorInfo)| StoredInfo {
                    name: (naming.canonical)(&stored),
                    tensor_type: tensor_type(info.dtype).ok_or_else(|| format!("{:?}", info.dtype)),
                    shape: info.shape.clone(),
                    start: info.data_offsets.0,
                    stored,
                };
                file.tensors().map(info).collect()
            }
            WeightFile::Gguf { gguf, names } => {
                let info = |(start, tensor): (usize, &calm_gguf::TensorInfo)| {
                    Some(StoredInfo {
                        stored: tensor.name.clone(),
                        name: names.hugging_face(&tensor.name)?,
                        tensor_type: tensor.ggml_type.supported().ok_or_else(|| tensor.ggml_type.to_string()),
                        shape: tensor.shape.clone(),
                        start,
                    })
                };
                gguf.tensors().enumerate().filter_map(info).collect()
            }
        }
    }

    /// Lists what is written about the whole file.
    pub(crate) fn notes(&self) -> impl Iterator<Item = (&str, &str)> {
        let safetensors = match self {
            WeightFile::Safetensors(file) => Some(file.notes()),
            WeightFile::Gguf { .. } => None,
        };
        safetensors.into_iter().flatten()
    }

    /// Reads the bytes of one of the file's tensors, which are little-endian and row after row, as Hugging
    /// Face orders the rows.
    pub(crate) fn read(&self, info: &StoredInfo) -> Result<Vec<u8>, Error> {
        match self {
            WeightFile::Safetensors(file) => file.read_named(&info.stored),
            WeightFile::Gguf { gguf, names } => {
                let tensor = gguf.tensor(&info.stored).ok_or_else(|| self.changed())?;
                let bytes = gguf.read(tensor)?;
                Ok(match names.paired_heads(&info.stored) {
                    Some(heads) => halves_of_pairs(&bytes, bytes.len() / info.shape[0], heads),
                    None => bytes,
                })
            }
        }
    }

    /// Checks that what was read is all from one version of the file, which is still there.
    pub(crate) fn check_unchanged(&self) -> Result<(), Error> {
        match self {
            WeightFile::Safetensors(file) => file.check_unchanged(),
            WeightFile::Gguf { gguf, .. } => Ok(gguf.check_unchanged()?),
        }
    }

    fn changed(&self) -> Error {
        Error::Changed { path: self.path().to_owned() }
    }
}

impl StoredInfo {
    /// Whether two tensors of one file are the same bytes.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        self.start == other.start
    }
}

/// The type of numbers that weights can have.
pub(crate) fn tensor_type(dtype: Dtype) -> Option<TensorType> {
    match dtype {
        Dtype::F32 => Some(TensorType::F32),
        Dtype::F16 => Some(TensorType::F16),
        Dtype::BF16 => Some(TensorType::Bf16),
        _ => None,
    }
}
