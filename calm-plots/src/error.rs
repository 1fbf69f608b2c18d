use std::path::PathBuf;

/// Why a figure was not saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or its folder cannot be written.
    #[error(transparent)]
    File(#[from] calm_files::Error),
    /// The figure cannot be drawn or encoded.
    #[error("cannot draw {}: {reason}", path.display())]
    Draw {
        /// Path of the file that the figure was drawn for.
        path: PathBuf,
        /// What the drawing library said.
        reason: String,
    },
    /// A chart of a page cannot be drawn; what the drawing library said.
    #[error("cannot draw a chart: {0}")]
    Inline(String),
}
