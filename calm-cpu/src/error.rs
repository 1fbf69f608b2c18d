/// What can go wrong between a checkpoint and a decoded token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint, or tokens that are given to it.
    #[error(transparent)]
    Checkpoint(#[from] calm_checkpoint::Error),
}
