use std::path::PathBuf;

/// What can stop a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written, or the configuration is wrong.
    #[error(transparent)]
    File(#[from] calm_files::Error),
    /// The checkpoint directory holds a checkpoint of another run.
    #[error("{} holds a checkpoint of another run ({reason}); remove it or change `checkpoints`", path.display())]
    OtherRun {
        /// Path of the checkpoint.
        path: PathBuf,
        /// Description of what differs.
        reason: String,
    },
    /// A checkpoint directory is incomplete or damaged, and there is no other one.
    #[error("{} is no usable checkpoint ({reason}); remove it to begin anew", path.display())]
    DamagedCheckpoint {
        /// Path of the checkpoint.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process trains with the same directory of checkpoints.
    #[error("another training is running in {}; wait for its end, or set `checkpoints` to another folder", path.display())]
    Locked {
        /// The directory of checkpoints.
        path: PathBuf,
    },
    /// The output folder holds a model that the run has not written.
    #[error("{} already holds a model, which this run has not written; set `output` to another folder, \
        or replace the model with --overwrite", path.display())]
    OutputTaken {
        /// The output folder.
        path: PathBuf,
    },
    /// The output would be written over what the run reads.
    #[error("output and {key} are the same folder, {}; set `output` to another one", path.display())]
    SameFolder {
        /// The other key of the configuration.
        key: &'static str,
        /// The folder.
        path: PathBuf,
    },
    /// No example is within the limits on length.
    #[error("no training example is left after the limits on length")]
    NoExamples,
    /// A file of tokens is damaged.
    #[error("{} is no file of tokens ({source}); remove it", path.display())]
    Tokens {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with the file.
        source: safetensors::SafeTensorError,
    },
    /// The checkpoint of `init` does not fit the run.
    #[error("{} cannot be trained further: {reason}", dir.display())]
    Init {
        /// The checkpoint directory.
        dir: PathBuf,
        /// What is wrong with the checkpoint.
        reason: String,
    },
    /// The loss is far above its running mean. The last checkpoint, if there was one, is intact.
    #[error("the loss jumped: at step {step} it is {loss:.3}, its running mean {mean:.3}, and loss_spike allows less; {}",
        intact(*checkpoint))]
    Spike {
        /// The loss of the interval.
        loss: f64,
        /// The running mean of the loss.
        mean: f64,
        /// The step at which it was noticed.
        step: u64,
        /// The step of the last checkpoint.
        checkpoint: Option<u64>,
    },
    /// The loss or its gradient is no longer a number. The last checkpoint, if there was one, is intact.
    #[error("the training diverged: at step {step} the loss is {loss}, its gradient's norm {gradient_norm}; {}",
        intact(*checkpoint))]
    Diverged {
        /// The loss of the interval.
        loss: f64,
        /// The step at which it was noticed.
        step: u64,
        /// The norm of the gradient.
        gradient_norm: f64,
        /// The step of the last checkpoint.
        checkpoint: Option<u64>,
    },
    /// A step has left a number that is none. The last checkpoint, if there was one, is intact.
    #[error("the training diverged: after step {step} {tensor} is not finite; {}", intact(*checkpoint))]
    NotFinite {
        /// Name of the tensor in the checkpoint that was to be written.
        tensor: String,
        /// The step.
        step: u64,
        /// The step of the last checkpoint.
        checkpoint: Option<u64>,
    },
    /// The training of the exit classifier diverged. The last checkpoint of the network is intact.
    #[error(
        "the exit classifier diverged; lower classifier.learning_rate, which is {learning_rate}, \
        and the same command goes on from there"
    )]
    Classifier {
        /// The configured learning rate.
        learning_rate: f64,
    },
    /// Exit heads cannot be trained.
    #[error("exit heads: {reason}")]
    Heads {
        /// What is wrong.
        reason: String,
    },
    /// There are exit heads already.
    #[error("{} already holds exit heads; replace them with --overwrite", path.display())]
    HeadsTaken {
        /// Path of the file.
        path: PathBuf,
    },
    /// The measures `agreement` cannot be fitted.
    #[error(transparent)]
    Fit(#[from] calm_fit::Error),
    /// Examples cannot be read.
    #[error(transparent)]
    Data(#[from] calm_data::Error),
    /// A checkpoint of a network, or its tokenizer, cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] calm_checkpoint::Error),
    /// The network failed.
    #[error(transparent)]
    Model(#[from] calm_model::Error),
    /// The validation examples cannot be decoded.
    #[error("validation: {0}")]
    Decode(#[from] calm_core::DecodeError),
    /// The validation examples cannot be scored.
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
