use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use calm_files::{FileVersion, map_file};
use memmap2::Mmap;

use crate::error::{Fault, FaultAt, Place};
use crate::metadata::{LEAST_PAIR, Pairs};
use crate::reader::Reader;
use crate::{Error, GgmlType, TensorType, Value};

const MAGIC: &[u8] = b"GGUF";
/// Versions with this layout. The first one had lengths of 32 bits.
const VERSIONS: [u32; 2] = [2, 3];
const ALIGNMENT_KEY: &str = "general.alignment";
const DEFAULT_ALIGNMENT: usize = 32;
/// `GGML_MAX_DIMS` of ggml.h.
const MOST_DIMENSIONS: usize = 4;
/// Bytes of a tensor's description at least: length and text of its name, number of dimensions, one of them,
/// type, offset.
const LEAST_INFO: usize = 8 + 1 + 4 + 8 + 4 + 8;

/// An open GGUF file, which is mapped as long as this lives.
///
/// The bytes of a mapped file that is overwritten in place change, and a process that reads what was cut off
/// is killed. So a file is kept open for as long as its weights are copied, and
/// [`check_unchanged`](Self::check_unchanged) is called at the end.
pub struct Gguf {
    path: PathBuf,
    pub(crate) map: Mmap,
    /// The file's version when it was opened.
    version: FileVersion,
    pub(crate) pairs: Pairs,
    tensors: Vec<TensorInfo>,
    /// Numbers of the tensors in the order of their names.
    by_name: Vec<usize>,
    /// Where the tensors' bytes begin.
    data_start: usize,
}

/// What a file says of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name of the tensor.
    pub name: String,
    /// Rows first, as Hugging Face writes it: the file's dimensions in reverse. There are 1 to 4.
    pub shape: Vec<usize>,
    /// The type in which the tensor is stored, which need not be one that can be used.
    pub ggml_type: GgmlType,
    /// Where its bytes begin, counted from where those of the first tensor may.
    offset: usize,
}

impl Gguf {
    /// Maps a file and checks all that it says of itself.
    ///
    /// # Errors
    /// [`Error::File`], and [`Error::Invalid`] with the place where the file is damaged.
    pub fn open(path: &Path) -> Result<Self, Error> {
        // Before the file is mapped: what comes in between shows at the end.
        let version = FileVersion::at(path)?;
        let map = map_file(path)?;
        let mut reader = Reader::new(&map, 0);
        let in_header = |fault: FaultAt| fault.in_file(path, Place::Header);
        let counts = Counts::read(&mut reader).map_err(in_header)?;
        let pairs = Pairs::read(path, &map, &mut reader, counts.pairs)?;
        let alignment = alignment(&map, &pairs).map_err(|fault| {
            let at = pairs.find(&map, ALIGNMENT_KEY).unwrap_or_default();
            FaultAt { at, fault }.in_file(path, Place::Key(ALIGNMENT_KEY.to_owned()))
        })?;
        // Again, since the keys are now behind: what follows sets aside memory by this number.
        let count = reader.check_count(counts.tensors, LEAST_INFO);
        let count = count.map_err(|fault| in_header(reader.fault(fault)))?;
        let mut tensors = Vec::with_capacity(count);
        let mut infos_at = Vec::with_capacity(count);
        for number in 0..count {
            infos_at.push(reader.at());
            tensors.push(TensorInfo::read(path, &mut reader, number as u64, alignment)?);
        }
        // What is too large is beyond the end of every file.
        let data_start = reader.at().checked_next_multiple_of(alignment).unwrap_or(usize::MAX);
        let by_name = by_name(&tensors).map_err(|[first, again]| {
            let (at, first) = (infos_at[again], infos_at[first]);
            let place = Place::Tensor(tensors[again].name.clone());
            FaultAt { at, fault: Fault::Duplicate { first } }.in_file(path, place)
        })?;
        let gguf = Gguf { path: path.to_owned(), map, version, pairs, tensors, by_name, data_start };
        gguf.check_ranges()?;
        Ok(gguf)
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lists the tensors in the order of the file.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.iter()
    }

    /// Finds a tensor.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let of = |&number: &usize| self.tensors[number].name.as_str();
        let found = self.by_name.binary_search_by_key(&name, of).ok()?;
        Some(&self.tensors[self.by_name[found]])
    }

    /// The type of one of the file's tensors.
    ///
    /// # Errors
    /// [`Error::TensorType`], if it is not supported.
    pub fn tensor_type(&self, tensor: &TensorInfo) -> Result<TensorType, Error> {
        tensor.ggml_type.supported().ok_or_else(|| Error::TensorType {
            path: self.path.clone(),
            tensor: tensor.name.clone(),
            found: tensor.ggml_type,
        })
    }

    /// The bytes of one of the file's tensors: row by row, in blocks of its type. There are none if the size
    /// of the type is not known.
    pub fn bytes(&self, tensor: &TensorInfo) -> &[u8] {
        let start = self.data_start + tensor.offset;
        tensor.byte_len().and_then(|length| self.map.get(start..start + length)).unwrap_or_default()
    }

    /// Reads the bytes of one of the file's tensors, as [`bytes`](Self::bytes) has them, without the map: a
    /// process that copies all tensors of a file through it would have the whole file in memory twice.
    ///
    /// # Errors
    /// [`Error::File`], and [`Error::Changed`] if the file was cut off since it was opened.
    pub fn read(&self, tensor: &TensorInfo) -> Result<Vec<u8>, Error> {
        let length = tensor.byte_len().unwrap_or_default();
        let failed = calm_files::Error::read(&self.path);
        let mut file = File::open(&self.path).map_err(&failed)?;
        file.seek(SeekFrom::Start((self.data_start + tensor.offset) as u64)).map_err(&failed)?;
        let mut bytes = Vec::with_capacity(length);
        file.take(length as u64).read_to_end(&mut bytes).map_err(&failed)?;
        if bytes.len() == length { Ok(bytes) } else { Err(Error::Changed { path: self.path.clone() }) }
    }

    /// Checks that the file which was mapped is still there as it was.
    ///
    /// # Errors
    /// [`Error::Changed`], and [`Error::File`] if the file is gone.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        if FileVersion::at(&self.path)? == self.version {
            Ok(())
        } else {
            Err(Error::Changed { path: self.path.clone() })
        }
    }

    /// Checks that tensors lie within the file and share no bytes.
    fn check_ranges(&self) -> Result<(), Error> {
        let invalid = |tensor: &TensorInfo, fault| {
            let at = self.data_start.saturating_add(tensor.offset);
            FaultAt { at, fault }.in_file(&self.path, Place::Tensor(tensor.name.clone()))
        };
        for tensor in &self.tensors {
            let needed = tensor.range_len();
            let left = self.map.len().saturating_sub(self.data_start).saturating_sub(tensor.offset);
            if needed > left {
                return Err(invalid(tensor, Fault::Cut { needed: needed as u128, left }));
            }
        }
        let mut by_offset: Vec<usize> = (0..self.tensors.len()).collect();
        let of = |&number: &usize| &self.tensors[number];
        by_offset.sort_unstable_by_key(|number| of(number).offset);
        for two in by_offset.windows(2) {
            let (before, after) = (of(&two[0]), of(&two[1]));
            if before.offset + before.range_len() > after.offset {
                return Err(invalid(after, Fault::Overlap { other: before.name.clone() }));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("path", &self.path)
            .field("tensors", &self.tensors)
            .finish_non_exhaustive()
    }
}

/// How many tensors and pairs of key and value there are.
struct Counts {
    tensors: u64,
    pairs: usize,
}

impl Counts {
    fn read(reader: &mut Reader<'_>) -> Result<Self, FaultAt> {
        let start = reader.clone().take(reader.left().min(MAGIC.len()) as u64)?;
        if start != MAGIC {
            return Err(reader.fault(Fault::Magic { found: start.to_owned() }));
        }
        reader.take(MAGIC.len() as u64)?;
        let found = reader.clone().u32()?;
        if !VERSIONS.contains(&found) {
            return Err(reader.fault(Fault::Version { found }));
        }
        reader.u32()?;
        let at = reader.at();
        let tensors = reader.u64()?;
        reader.check_count(tensors, LEAST_INFO).map_err(|fault| FaultAt { at, fault })?;
        let pairs = reader.count(LEAST_PAIR)?;
        Ok(Counts { tensors, pairs })
    }
}

/// What the beginnings of tensors are multiples of.
fn alignment(bytes: &[u8], pairs: &Pairs) -> Result<usize, Fault> {
    let value = pairs.find(bytes, ALIGNMENT_KEY).and_then(|at| crate::value::value_at(bytes, at).ok());
    match value {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::U32(alignment)) if alignment.is_power_of_two() => Ok(alignment as usize),
        Some(value) => Err(Fault::Alignment { found: format!("{value:?}") }),
    }
}

impl TensorInfo {
    /// Reads the description of a tensor and checks what it says by itself.
    fn read(path: &Path, reader: &mut Reader<'_>, number: u64, alignment: usize) -> Result<Self, Error> {
        let name = reader.name().map_err(|fault| fault.in_file(path, Place::Info(number)))?;
        let info = Self::read_named(name, reader, alignment);
        info.map_err(|fault| fault.in_file(path, Place::Tensor(name.to_owned())))
    }

    fn read_named(name: &str, reader: &mut Reader<'_>, alignment: usize) -> Result<Self, FaultAt> {
        let at = reader.at();
        let found = reader.u32()?;
        if found == 0 || found as usize > MOST_DIMENSIONS {
            return Err(FaultAt { at, fault: Fault::Dimensions { found, most: MOST_DIMENSIONS } });
        }
        let at = reader.at();
        let mut dimensions = [0; MOST_DIMENSIONS];
        let dimensions = &mut dimensions[..found as usize];
        for dimension in &mut *dimensions {
            *dimension = reader.u64()?;
        }
        let ggml_type = GgmlType(reader.u32()?);
        let shape = shape(dimensions, ggml_type).map_err(|fault| FaultAt { at, fault })?;
        let at = reader.at();
        let offset = reader.u64()?;
        match usize::try_from(offset) {
            // Not so large that a sum with it would be.
            Ok(fits) if fits.is_multiple_of(alignment) && fits <= usize::MAX / 4 => {
                Ok(TensorInfo { name: name.to_owned(), shape, ggml_type, offset: fits })
            }
            _ => Err(FaultAt { at, fault: Fault::Offset { offset, alignment } }),
        }
    }

    /// How many bytes the tensor takes, if the size of its type is known.
    fn byte_len(&self) -> Option<usize> {
        let (values, bytes) = self.ggml_type.block()?;
        Some(self.shape.iter().product::<usize>() / values * bytes)
    }

    /// How many bytes of the file are known to be this tensor's.
    fn range_len(&self) -> usize {
        self.byte_len().unwrap_or(1)
    }
}

/// The shape of dimensions in a file's order, whose size in bytes is a number that can be.
fn shape(dimensions: &[u64], ggml_type: GgmlType) -> Result<Vec<usize>, Fault> {
    let invalid = || Fault::Elements { found: dimensions.to_owned() };
    // Bytes of a value are at most 8. Half of that range is left for sums with offsets.
    let fits = |elements: &usize| *elements > 0 && *elements <= usize::MAX / 32;
    let mut elements = 1_usize;
    for &dimension in dimensions {
        let dimension = usize::try_from(dimension).ok();
        elements = dimension.and_then(|d| elements.checked_mul(d)).filter(fits).ok_or_else(invalid)?;
    }
    let shape: Vec<usize> = dimensions.iter().rev().map(|&dimension| dimension as usize).collect();
    let (columns, block_len) = (dimensions[0] as usize, ggml_type.block().map_or(1, |(values, _)| values));
    if !columns.is_multiple_of(block_len) {
        return Err(Fault::Row { columns, ggml_type, block_len });
    }
    Ok(shape)
}

/// The numbers of tensors in the order of their names, or two that have the same one.
fn by_name(tensors: &[TensorInfo]) -> Result<Vec<usize>, [usize; 2]> {
    let mut numbers: Vec<usize> = (0..tensors.len()).collect();
    numbers.sort_unstable_by_key(|&number| (&tensors[number].name, number));
    let name = |number: usize| &tensors[number].name;
    match numbers.windows(2).find(|two| name(two[0]) == name(two[1])) {
        Some(two) => Err([two[0], two[1]]),
        None => Ok(numbers),
    }
}
