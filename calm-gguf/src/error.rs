use std::fmt;
use std::path::{Path, PathBuf};

use crate::{GgmlType, TensorType};

/// What can be wrong with a GGUF file, or with what is asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] calm_files::Error),
    /// The file's bytes cannot be what they should be.
    #[error("{}: {place}, at byte {at}: {fault}", path.display())]
    Invalid {
        /// Path of the file.
        path: PathBuf,
        /// The part of the file that was read.
        place: Place,
        /// Where in the file it is wrong.
        at: usize,
        /// What is wrong.
        fault: Fault,
    },
    /// The metadata lack a key that is needed.
    #[error("{} has no key `{key}`", path.display())]
    MissingKey {
        /// Path of the file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// The value of a key is none of those it may have.
    #[error("{}: key `{key}`: {reason}", path.display())]
    Value {
        /// Path of the file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with the value.
        reason: String,
    },
    /// A tensor is stored in a type for which there is no arithmetic here.
    #[error(
        "{}: tensor `{tensor}` is stored as {found}, which is not supported: there are {}",
        path.display(),
        supported()
    )]
    TensorType {
        /// Path of the file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// The type in which it is stored.
        found: GgmlType,
    },
    /// The file was overwritten or cut off while it was in use.
    #[error("{} has changed while it was read: start again when nothing writes to it", path.display())]
    Changed {
        /// Path of the file.
        path: PathBuf,
    },
}

fn supported() -> String {
    TensorType::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}

/// A part of a GGUF file, as far as it is known where something is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// What every file begins with.
    Header,
    /// A pair of key and value before its key is known: its number, from 0.
    Pair(u64),
    /// The pair of a key.
    Key(String),
    /// The description of a tensor before its name is known: its number, from 0.
    Info(u64),
    /// The tensor of a name.
    Tensor(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Header => write!(f, "header"),
            Place::Pair(number) => write!(f, "key number {number}"),
            Place::Key(key) => write!(f, "key `{key}`"),
            Place::Info(number) => write!(f, "tensor number {number}"),
            Place::Tensor(name) => write!(f, "tensor `{name}`"),
        }
    }
}

/// What is wrong with some bytes of a GGUF file.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The file does not begin with the four letters.
    #[error("a GGUF file begins with `GGUF`, and this one with `{}`", found.escape_ascii())]
    Magic {
        /// What it begins with.
        found: Vec<u8>,
    },
    /// The file is a version that has another layout.
    #[error("version {found} of the format; only versions 2 and 3 can be read, with the least byte first")]
    Version {
        /// The number in the file.
        found: u32,
    },
    /// Something reaches beyond the end of the file.
    #[error("{needed} bytes are needed, but the file has {left} from here on")]
    Cut {
        /// How many bytes there should be.
        needed: u128,
        /// How many there are.
        left: usize,
    },
    /// There is more of something than the rest of the file could hold.
    #[error("a count of {count}, each of at least {least} bytes, but the file has {left} from here on")]
    Count {
        /// The number in the file.
        count: u64,
        /// How many bytes each takes at least.
        least: usize,
        /// How many bytes there are.
        left: usize,
    },
    /// A name is empty or too long.
    #[error("a name of {length} bytes; names have 1 to {most}")]
    NameLength {
        /// The number in the file.
        length: u64,
        /// The greatest length.
        most: usize,
    },
    /// A text is not UTF-8.
    #[error("a text that is not UTF-8")]
    Utf8,
    /// A key or the name of a tensor is there twice.
    #[error("it is there twice, first at byte {first}")]
    Duplicate {
        /// Where the first one is.
        first: usize,
    },
    /// A number stands for no type of values.
    #[error("{found} stands for no type of values")]
    ValueType {
        /// The number in the file.
        found: u32,
    },
    /// A truth value is neither 0 nor 1.
    #[error("a truth value is {found}, neither 0 nor 1")]
    Bool {
        /// The number in the file.
        found: u8,
    },
    /// Arrays are nested too deep.
    #[error("arrays within arrays, more than {most} deep")]
    Nesting {
        /// The greatest depth.
        most: usize,
    },
    /// The alignment of tensors cannot be one.
    #[error("an alignment has to be a power of two as u32, and it is {found}")]
    Alignment {
        /// The value in the file.
        found: String,
    },
    /// A tensor has no dimension or too many.
    #[error("{found} dimensions; tensors have 1 to {most}")]
    Dimensions {
        /// The number in the file.
        found: u32,
        /// The greatest number.
        most: usize,
    },
    /// A dimension is 0, or the product of all is too large for any file.
    #[error("dimensions {found:?}, whose product is 0 or too large")]
    Elements {
        /// The dimensions in the file's order.
        found: Vec<u64>,
    },
    /// A row does not consist of whole blocks.
    #[error("rows of {columns}, but {ggml_type} has blocks of {block_len}")]
    Row {
        /// Length of a row.
        columns: usize,
        /// The type.
        ggml_type: GgmlType,
        /// Values in a block of it.
        block_len: usize,
    },
    /// A tensor does not begin at a multiple of the alignment.
    #[error("an offset of {offset}, which is not a multiple of the alignment, {alignment}")]
    Offset {
        /// The number in the file.
        offset: u64,
        /// The alignment.
        alignment: usize,
    },
    /// Two tensors share bytes.
    #[error("it shares bytes with tensor `{other}`")]
    Overlap {
        /// Name of the other tensor.
        other: String,
    },
}

/// Something wrong at a byte, before it is known in which file.
#[derive(Debug)]
pub(crate) struct FaultAt {
    pub(crate) at: usize,
    pub(crate) fault: Fault,
}

impl FaultAt {
    pub(crate) fn in_file(self, path: &Path, place: Place) -> Error {
        Error::Invalid { path: path.to_owned(), place, at: self.at, fault: self.fault }
    }
}
