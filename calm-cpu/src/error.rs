/// What can go wrong between a checkpoint and a decoded token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint, or tokens that are given to it.
    #[error(transparent)]
    Checkpoint(#[from] calm_checkpoint::Error),
    /// No weight type has this name.
    #[error("unknown weight type `{0}`: expected f32, bf16 or int8")]
    UnknownWeightType(String),
}
