use std::path::PathBuf;

/// Why a figure was not saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or its folder cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The figure cannot be drawn or encoded.
    #[error("cannot draw {}: {reason}", path.display())]
    Draw {
        /// Path of the file that the figure was drawn for.
        path: PathBuf,
        /// What the drawing library said.
        reason: String,
    },
}
