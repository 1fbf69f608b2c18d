/// Why a score cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Hypotheses and references do not pair up.
    #[error("{hypotheses} hypotheses but references for {references}")]
    CountMismatch {
        /// Number of hypotheses.
        hypotheses: usize,
        /// Number of segments that references were given for.
        references: usize,
    },
    /// A corpus without segments has no score.
    #[error("the corpus has no segments")]
    EmptyCorpus,
    /// A segment without references has no score.
    #[error("segment {segment} (counted from 0) has no reference")]
    NoReference {
        /// Index of the segment; 0 where a single sentence is scored.
        segment: usize,
    },
    /// Two systems cannot be compared segment by segment.
    #[error("the baseline has {} but the system {system}", calm_names::counted(*baseline, "segment"))]
    SystemMismatch {
        /// Number of segments of the baseline.
        baseline: usize,
        /// Number of segments of the system.
        system: usize,
    },
    /// Two systems were not scored by the same metric with the same options.
    #[error("the systems were scored by different metrics")]
    ScorerMismatch,
    /// Nothing can be estimated without resamples.
    #[error("the number of resamples is 0, but must be at least 1")]
    NoSamples,
    /// The scores of all resamples are kept in memory.
    #[error(
        "the number of resamples is {samples}, but must be at most {}: all their scores are kept, and a p-value has \
         seven digits by then",
        crate::significance::MOST_SAMPLES
    )]
    TooManySamples {
        /// Number of resamples that was asked for.
        samples: usize,
    },
    /// No metric, loss or tokenizer has this name.
    #[error(transparent)]
    UnknownName(#[from] calm_names::UnknownName),
}
