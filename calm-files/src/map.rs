//! Files that are mapped into memory.

use std::fs::{File, Metadata};
use std::path::Path;
use std::time::SystemTime;

use memmap2::Mmap;

use crate::Error;

/// Maps a file that nobody changes while the map lives.
///
/// # Errors
/// [`Error::Read`], where the file cannot be opened or mapped.
#[allow(unsafe_code)]
pub fn map_file(path: &Path) -> Result<Mmap, Error> {
    File::open(path)
        // SAFETY: a file rewritten in place by another process could change under the map. This project
        // itself replaces files by renaming only, which leaves the mapped one as it was.
        .and_then(|file| unsafe { Mmap::map(&file) })
        .map_err(Error::read(path))
}

/// What tells one version of a file from the next: its size and the time of its last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileVersion {
    /// Size in bytes.
    pub length: u64,
    /// Time of the last change, where the file system keeps it.
    pub modified: Option<SystemTime>,
}

impl FileVersion {
    /// The version of the file that lies at `path` now.
    ///
    /// # Errors
    /// [`Error::Read`]
    pub fn at(path: &Path) -> Result<Self, Error> {
        std::fs::metadata(path).map(|metadata| Self::of(&metadata)).map_err(Error::read(path))
    }

    /// The version that the metadata of a file describe.
    pub fn of(metadata: &Metadata) -> Self {
        FileVersion { length: metadata.len(), modified: metadata.modified().ok() }
    }
}
