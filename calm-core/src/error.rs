//! What can go wrong when a batch is decoded.

use calm_names::UnknownName;

/// A failure of an engine, whichever engine it is.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct EngineError(Box<dyn std::error::Error + Send + Sync>);

impl EngineError {
    /// Wraps an engine's own error, or a message.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

/// Why a batch could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The backbone cannot follow the policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Numbers became too large for f32 on the way through the network, so that its outputs mean nothing.
    #[error(
        "{what} of row {row} of the batch are not finite after layer {layer} at step {step}: the model's \
         weights, or its type of weights, make numbers too large"
    )]
    NotFinite {
        /// What is not finite.
        what: NotFinite,
        /// The layer after which it is not, from 1; 0 for the embedding.
        layer: usize,
        /// Row of the batch, from 0.
        row: usize,
        /// Number of the output's token, from 1.
        step: usize,
    },
    /// A beam search cannot be done as it is asked for.
    #[error("cannot search with beams: {0}")]
    Beams(String),
    /// An engine or a measure answered for another number of entries than it was asked about.
    #[error("{whose} answered for {found} rows instead of {expected}")]
    Rows {
        /// Who answered, such as `the engine's top2`.
        whose: String,
        /// Entries asked about.
        expected: usize,
        /// Entries in the answer.
        found: usize,
    },
}

/// What can become infinite or not a number while decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFinite {
    /// The residual state, or its square.
    States,
    /// The logits of a state that is finite.
    Logits,
}

impl std::fmt::Display for NotFinite {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::States => "the states",
            Self::Logits => "the logits",
        })
    }
}

/// Why a policy cannot be followed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// The threshold is outside its range.
    #[error("threshold must be from 0 to 1, not {0}")]
    Threshold(f64),
    /// The decay is outside its range.
    #[error("decay must be a finite number not below 0, not {0}")]
    Decay(f64),
    /// There is no such measure or policy.
    #[error(transparent)]
    Unknown(#[from] UnknownName),
    /// A written policy has not the form of its kind, lacks a parameter or has one too many.
    #[error("{0}")]
    Form(String),
    /// The backbone came without a trained exit classifier.
    #[error("the classifier measure needs an exit classifier, and the model has none")]
    NoClassifier,
    /// The classifier belongs to another backbone.
    #[error("the exit classifier has {width} weights, but the model's states have {d_model} elements")]
    ClassifierWidth {
        /// Weights of the classifier.
        width: usize,
        /// Width of the residual stream.
        d_model: usize,
    },
    /// The decoder has fewer layers.
    #[error("static depth must be from 1 to the decoder's {available} layers, not {layers}")]
    StaticLayers {
        /// Layers asked for.
        layers: usize,
        /// Layers of the decoder.
        available: usize,
    },
    /// A test is asked for where there is nothing to decide.
    #[error("exits must be below the last of the decoder's {num_layers} layers, but one is {layer}")]
    Exits {
        /// The layer.
        layer: usize,
        /// Layers of the decoder.
        num_layers: usize,
    },
    /// A measure cannot be used with this backbone, for a reason of its own.
    #[error("the {measure} measure {reason}")]
    Measure {
        /// Name of the measure.
        measure: &'static str,
        /// What is wrong, as the end of a sentence.
        reason: String,
    },
}
