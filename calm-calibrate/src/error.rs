use crate::{LossKind, PValue};

/// What can be wrong with the input of this crate. A calibration that certifies nothing is not an error.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A tolerance, an error probability or a p-value outside its range, or text that is not a number.
    #[error("{quantity} must lie in {range}, found {found}")]
    OutOfRange {
        /// The quantity, as in the documentation.
        quantity: &'static str,
        /// The allowed interval.
        range: &'static str,
        /// What was given.
        found: String,
    },
    /// The name of a p-value, procedure or kind of loss that does not exist.
    #[error("unknown {what} `{found}`, expected one of {expected}")]
    UnknownName {
        /// What was to be named.
        what: &'static str,
        /// The name given.
        found: String,
        /// The names that exist.
        expected: String,
    },
    /// A loss outside the range of its kind.
    #[error(transparent)]
    InvalidLoss(#[from] InvalidLoss),
    /// A loss in a table outside the range of its kind.
    #[error("threshold {threshold_index} ({threshold}): {invalid}")]
    InvalidLossInTable {
        /// Index of the threshold in the table.
        threshold_index: usize,
        /// The threshold itself.
        threshold: f64,
        /// The example and its loss.
        invalid: InvalidLoss,
    },
    /// A sum of losses that `examples` losses of this kind cannot have.
    #[error("{examples} losses of kind {kind} cannot have the sum {sum}")]
    ImpossibleSum {
        /// The sum given.
        sum: f64,
        /// The number of losses.
        examples: usize,
        /// Their kind.
        kind: LossKind,
    },
    /// A p-value that does not hold for losses of this kind.
    #[error("the {p_value} p-value does not hold for losses of kind {kind}")]
    KindMismatch {
        /// The p-value asked for.
        p_value: PValue,
        /// The declared kind of the losses.
        kind: LossKind,
    },
    /// The sum of the losses is not enough for a p-value.
    #[error("the {p_value} p-value needs every loss, not only their sum")]
    NeedsLosses {
        /// The p-value asked for.
        p_value: PValue,
    },
    /// Weights or transitions that share out more than there is, or not one row for each hypothesis.
    #[error("the graph is not valid: {message}")]
    InvalidGraph {
        /// What is wrong.
        message: String,
    },
    /// One part of a split would be empty.
    #[error("{examples} examples are too few to be split")]
    TooFewToSplit {
        /// The number of examples.
        examples: usize,
    },
    /// Pareto testing without anything to save.
    #[error("there is no cost to choose a configuration by")]
    NoCosts,
    /// Two tables that belong together have different sizes.
    #[error("{found} {what} instead of {expected}")]
    UnequalCounts {
        /// What was counted.
        what: &'static str,
        /// How many there are elsewhere.
        expected: usize,
        /// How many there are here.
        found: usize,
    },
    /// There are no losses to calibrate on.
    #[error("there are no examples")]
    NoExamples,
    /// A table without thresholds.
    #[error("the table has no thresholds")]
    NoThresholds,
    /// The table has not one row of losses for each threshold.
    #[error("{thresholds} thresholds but {rows} rows of losses")]
    RowCount {
        /// Number of thresholds.
        thresholds: usize,
        /// Number of rows of losses.
        rows: usize,
    },
    /// Every example must have a loss at every threshold.
    #[error("threshold {threshold_index} ({threshold}) has {found} losses, the first one has {expected}")]
    RowLength {
        /// Index of the threshold in the table.
        threshold_index: usize,
        /// The threshold itself.
        threshold: f64,
        /// Losses of the first threshold.
        expected: usize,
        /// Losses of this one.
        found: usize,
    },
    /// A threshold outside `[0, 1]`, or not a number.
    #[error("threshold {threshold_index} is {threshold}, which is not in [0, 1]")]
    InvalidThreshold {
        /// Index of the threshold in the table.
        threshold_index: usize,
        /// The threshold itself.
        threshold: f64,
    },
    /// Thresholds must strictly descend: the order of testing is fixed in advance, most conservative first.
    #[error(
        "threshold {threshold_index} ({threshold}) does not lie below the one before it ({previous}): \
         give them from the largest, the most conservative, to the least"
    )]
    ThresholdOrder {
        /// Index of the threshold in the table.
        threshold_index: usize,
        /// The threshold itself.
        threshold: f64,
        /// The threshold before it.
        previous: f64,
    },
    /// A threshold has fewer or more losses than the calibration was made for.
    #[error("threshold {threshold_index} ({threshold}) has {found} losses instead of {expected}")]
    ExampleCount {
        /// Index of the threshold in the table.
        threshold_index: usize,
        /// The threshold itself.
        threshold: f64,
        /// The number of examples.
        expected: usize,
        /// Losses of this threshold.
        found: usize,
    },
    /// The row of threshold 1 is not that of the full model, so the fallback would be void.
    #[error("at threshold 1, the full model, example {example} must have loss 0 but has {loss}")]
    FullModelLoss {
        /// Index of the example.
        example: usize,
        /// Its loss.
        loss: f64,
    },
}

/// One loss outside the range of its kind.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the loss of example {example} is {loss}, which is not in {}", .kind.range())]
pub struct InvalidLoss {
    /// Index of the example.
    pub example: usize,
    /// Its loss.
    pub loss: f64,
    /// The declared kind.
    pub kind: LossKind,
}
