/// What can go wrong between a checkpoint on disk and a decoded token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint, or tokens that are given to it.
    #[error(transparent)]
    Checkpoint(#[from] calm_checkpoint::Error),
    /// The device was not understood or is not there.
    #[error("{0}")]
    Device(String),
    /// Weights were asked for in a type, and there is no choice.
    #[error("libtorch decodes in f32; other types are for the CPU engine")]
    WeightType,
    /// Keys and values were asked for in a type, and there is no choice.
    #[error("libtorch keeps keys and values in f32; other types are for the CPU engine")]
    CacheType,
    /// libtorch reported an error.
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
}

impl From<Error> for calm_core::EngineError {
    fn from(error: Error) -> Self {
        Self::new(error)
    }
}

/// The C++ backtrace below the first line of libtorch's messages helps nobody.
fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
