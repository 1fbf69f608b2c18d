//! Files for readers that take paths.

use std::cell::OnceCell;
use std::path::PathBuf;

use tempfile::TempDir;

thread_local! {
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

/// Returns this thread's folder.
pub(crate) fn folder() -> PathBuf {
    let made = || TempDir::new().expect("a temporary folder can be made");
    FOLDER.with(|folder| folder.get_or_init(made).path().to_owned())
}

/// Writes a file below this thread's folder, in place of what was there, and returns its path.
pub(crate) fn file(name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder().join(name);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).expect("a temporary folder can be made");
    }
    // A new file: where one is cut off and written again, some file systems wait for the disk.
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, bytes).expect("a temporary file can be written");
    path
}

/// Writes a file, or sees to it that there is none.
pub(crate) fn file_if_any(name: &str, bytes: Option<impl AsRef<[u8]>>) {
    match bytes {
        Some(bytes) => drop(file(name, bytes)),
        None => drop(std::fs::remove_file(folder().join(name))),
    }
}
