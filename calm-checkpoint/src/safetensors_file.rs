//! One safetensors file, whose tensors are read one by one.
//!
//! Files are read and not mapped: where a mapped file is overwritten or cut off in place, as `cp` does it,
//! the process is killed, or goes on with other weights than those it was loaded with.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use calm_files::FileVersion;
use safetensors::SafeTensorError;
use safetensors::tensor::{Metadata as Header, TensorInfo};

use crate::Error;

/// What a file begins with that Git LFS has not fetched (github.com/git-lfs/git-lfs/blob/main/docs/spec.md).
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// An open safetensors file.
pub struct SafetensorsFile {
    path: PathBuf,
    file: File,
    header: Header,
    /// Where the tensors begin.
    data_start: u64,
    /// The file's version when it was opened.
    version: FileVersion,
}

impl SafetensorsFile {
    /// Opens a file and reads what it says of its tensors.
    ///
    /// # Errors
    /// Fails if the file cannot be read, is a Git LFS pointer, is damaged or was cut off.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let invalid = |source| Error::Safetensors { path: path.to_owned(), source };
        let failed = calm_files::Error::read(path);
        let file = File::open(path).map_err(&failed)?;
        let version = FileVersion::of(&file.metadata().map_err(&failed)?);
        let start = read_at(&file, 0, LFS_POINTER.len()).map_err(&failed)?;
        if start == LFS_POINTER {
            return Err(Error::LfsPointer { path: path.to_owned() });
        }
        let length = *start.first_chunk().ok_or(SafeTensorError::HeaderTooSmall).map_err(invalid)?;
        let data_start = u64::from_le_bytes(length).saturating_add(size_of_val(&length) as u64);
        // Checked before there is memory for it: the first bytes of another format may be any number.
        if data_start > version.length {
            return Err(invalid(SafeTensorError::InvalidHeaderLength));
        }
        let text =
            read_at(&file, length.len() as u64, data_start as usize - length.len()).map_err(&failed)?;
        let header: Header = serde_json::from_slice(&text)
            .map_err(|source| invalid(SafeTensorError::InvalidHeaderDeserialization(source)))?;
        if data_start + header.data_len() as u64 != version.length {
            return Err(invalid(SafeTensorError::MetadataIncompleteBuffer));
        }
        Ok(SafetensorsFile { path: path.to_owned(), file, header, data_start, version })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lists the tensors in the order in which they are stored, with their types and shapes.
    pub fn tensors(&self) -> impl Iterator<Item = (String, &TensorInfo)> {
        let names = self.header.offset_keys();
        names.into_iter().filter_map(|name| self.header.info(&name).map(|info| (name, info)))
    }

    /// Lists what is written about the whole file.
    pub(crate) fn notes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.header.metadata().iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Reads the bytes of one of the file's tensors, which are little-endian and in row-major order.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or was cut off since it was opened.
    pub fn read(&self, tensor: &TensorInfo) -> Result<Vec<u8>, Error> {
        let (start, end) = tensor.data_offsets;
        let bytes = read_at(&self.file, self.data_start + start as u64, end - start)
            .map_err(calm_files::Error::read(&self.path))?;
        // The file was long enough when it was opened.
        if bytes.len() == end - start { Ok(bytes) } else { Err(self.changed()) }
    }

    /// Reads the bytes of the tensor that the file calls so.
    pub(crate) fn read_named(&self, name: &str) -> Result<Vec<u8>, Error> {
        match self.header.info(name) {
            Some(info) => self.read(info),
            None => Err(self.changed()),
        }
    }

    /// Checks that what was read is all from one version of the file, which is still there.
    ///
    /// # Errors
    /// Fails if the file has changed since it was opened.
    pub(crate) fn check_unchanged(&self) -> Result<(), Error> {
        if FileVersion::at(&self.path)? == self.version { Ok(()) } else { Err(self.changed()) }
    }

    fn changed(&self) -> Error {
        Error::Changed { path: self.path.clone() }
    }
}

/// Reads so many bytes, or as many as there are.
fn read_at(mut file: &File, start: u64, count: usize) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::with_capacity(count);
    file.take(count as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
