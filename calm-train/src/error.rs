use std::path::PathBuf;

/// What can stop a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration is wrong.
    #[error("{}{}: {reason}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Config {
        /// The file.
        path: PathBuf,
        /// Where in it, from 1, if the file has the key at all.
        line: Option<usize>,
        /// Key and reason.
        reason: String,
    },
    /// The checkpoint in the way belongs to another run.
    #[error("{} holds a checkpoint of another run ({reason}); remove it or change `checkpoints`", path.display())]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// The checkpoint's own record does not parse.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// No example fits the limits.
    #[error("no training example is left after the limits on length")]
    NoExamples,
    /// A file of tokens is damaged.
    #[error("{} is no file of tokens ({source}); remove it", path.display())]
    Tokens {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: safetensors::SafeTensorError,
    },
    /// The checkpoint of `init` does not fit the run.
    #[error("{} cannot be trained further: {reason}", dir.display())]
    Init {
        /// The checkpoint directory.
        dir: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The loss is far above its running mean. The last checkpoint, if there was one, is intact.
    #[error("the loss jumped: at step {step} it is {loss:.3}, its running mean {mean:.3}, and loss_spike allows less; {}",
        intact(*checkpoint))]
    Spike {
        /// The loss.
        loss: f64,
        /// Its running mean.
        mean: f64,
        /// When it was noticed.
        step: u64,
        /// Step of the last checkpoint.
        checkpoint: Option<u64>,
    },
    /// The loss or its gradient is no longer a number. The last checkpoint, if there was one, is intact.
    #[error("the training diverged: at step {step} the loss is {loss}, its gradient's norm {gradient_norm}; {}",
        intact(*checkpoint))]
    Diverged {
        /// The loss.
        loss: f64,
        /// When it was noticed.
        step: u64,
        /// The norm of its gradient.
        gradient_norm: f64,
        /// Step of the last checkpoint.
        checkpoint: Option<u64>,
    },
    /// Reading examples failed.
    #[error(transparent)]
    Data(#[from] calm_data::Error),
    /// A checkpoint of a network, or its tokenizer.
    #[error(transparent)]
    Checkpoint(#[from] calm_checkpoint::Error),
    /// The network failed.
    #[error(transparent)]
    Model(#[from] calm_model::Error),
    /// Decoding the validation examples failed.
    #[error("validation: {0}")]
    Decode(#[from] calm_core::DecodeError<calm_model::Error>),
    /// Scoring the validation examples failed.
    #[error("validation: {0}")]
    Metric(#[from] calm_metrics::Error),
    /// The learning curves cannot be drawn.
    #[error(transparent)]
    Plot(#[from] calm_plots::Error),
    /// libtorch reported an error.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

fn intact(checkpoint: Option<u64>) -> String {
    checkpoint.map_or("there is no checkpoint yet".to_owned(), |step| {
        format!("the checkpoint of step {step} is intact")
    })
}
