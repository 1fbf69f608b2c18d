use calm_core::EngineError;

/// What can go wrong between a checkpoint and a decoded token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint, or tokens that are given to it.
    #[error(transparent)]
    Checkpoint(#[from] calm_checkpoint::Error),
    /// A device that this engine does not run on.
    #[error("the CPU engine has no device {0}")]
    Device(String),
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        Self::new(error)
    }
}
