use calm_names::counted;

use crate::{LossKind, PValue};

/// What can be wrong with the input of this crate. A calibration that certifies nothing is not an error.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A tolerance, an error probability or a p-value lies outside its range, or is not a number.
    #[error("{quantity} must lie in {range}, found {found}")]
    OutOfRange {
        /// Name of the quantity, as in the documentation.
        quantity: &'static str,
        /// The allowed interval.
        range: &'static str,
        /// The value that was given.
        found: String,
    },
    /// A name of a p-value, procedure or kind of loss does not exist.
    #[error(transparent)]
    UnknownName(#[from] calm_names::UnknownName),
    /// A loss lies outside the range of its kind.
    #[error(transparent)]
    InvalidLoss(#[from] InvalidLoss),
    /// A loss in a table lies outside the range of its kind.
    #[error("threshold {threshold_index} ({threshold}): {invalid}")]
    InvalidLossInTable {
        /// Index of the threshold in the table.
        threshold_index: usize,
        /// The threshold itself.
        threshold: f64,
        /// The example and its loss.
        invalid: InvalidLoss,
    },
    /// A sum of losses is given that `examples` losses of this kind cannot have.
    #[error("{} of kind {kind} cannot have the sum {sum}", counted(*examples, "loss"))]
    ImpossibleSum {
        /// The sum that was given.
        sum: f64,
        /// The number of losses.
        examples: usize,
        /// The declared kind of the losses.
        kind: LossKind,
    },
    /// A p-value does not hold for losses of this kind.
    #[error("the {p_value} p-value does not hold for losses of kind {kind}")]
    KindMismatch {
        /// The p-value that was asked for.
        p_value: PValue,
        /// The declared kind of the losses.
        kind: LossKind,
    },
    /// A p-value needs more than the sum of the losses.
    #[error("the {p_value} p-value needs every loss, not only their sum")]
    NeedsLosses {
        /// The p-value that was asked for.
        p_value: PValue,
    },
    /// Weights or transitions of a graph share out more than there is, or have no row for some hypothesis.
    #[error("the graph is not valid: {message}")]
    InvalidGraph {
        /// Description of the fault.
        message: String,
    },
    /// One part of a split would be empty.
    #[error("{} {} too few to be split", counted(*examples, "example"), if *examples == 1 { "is" } else { "are" })]
    TooFewToSplit {
        /// The number of examples.
        examples: usize,
    },
    /// Pareto testing has nothing to save.
    #[error("there is no cost to choose a configuration by")]
    NoCosts,
    /// Two tables that belong together have different sizes.
    #[error("{found} {what} instead of {expected}")]
    UnequalCounts {
        /// What was counted.
        what: &'static str,
        /// The number that is expected, which is that of the other table.
        expected: usize,
        /// The number that was found.
        found: usize,
    },
    /// Values of a result that was read from a file cannot be those of one calibration.
    #[error("the calibration contradicts itself: {message}")]
    Contradiction {
        /// Description of the fault.
        message: String,
    },
    /// There are no losses to calibrate on.
    #[error("there are no examples")]
    NoExamples,
    /// A table has no thresholds.
    #[error("the table has no thresholds")]
    NoThresholds,
    /// A table does not have one row of losses for each threshold.
    #[error("{} but {} of losses", counted(*thresholds, "threshold"), counted(*rows, "row"))]
    RowCount {
        /// Number of thresholds.
        thresholds: usize,
        /// Number of rows of losses.
        rows: usize,
    },
    /// A threshold has fewer or more losses than the first one.
    #[error("threshold {threshold_index} ({threshold}) has {}, the first one has {expected}", counted(*found, "loss"))]
    RowLength {
        /// Index of the threshold in the table.
        threshold_index: usize,
        /// The threshold itself.
        threshold: f64,
        /// Number of losses of the first threshold.
        expected: usize,
        /// Number of losses of this threshold.
        found: usize,
    },
    /// A threshold lies outside `[0, 1]`, or is not a number.
    #[error("threshold {threshold_index} is {threshold}, which is not in [0, 1]")]
    InvalidThreshold {
        /// Index of the threshold in the table.
        threshold_index: usize,
        /// The threshold itself.
        threshold: f64,
    },
    /// Thresholds do not strictly descend. The order of testing is fixed in advance, the most conservative
    /// one first.
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
    #[error("threshold {threshold_index} ({threshold}) has {} instead of {expected}", counted(*found, "loss"))]
    ExampleCount {
        /// Index of the threshold in the table.
        threshold_index: usize,
        /// The threshold itself.
        threshold: f64,
        /// The number of examples.
        expected: usize,
        /// Number of losses of this threshold.
        found: usize,
    },
    /// The row of threshold 1 is not that of the full model, so the fallback would be void.
    #[error("at threshold 1, the full model, example {example} must have loss 0 but has {loss}")]
    FullModelLoss {
        /// Index of the example.
        example: usize,
        /// The loss of that example.
        loss: f64,
    },
}

/// One loss that lies outside the range of its kind.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the loss of example {example} is {loss}, which is not in {}", .kind.range())]
pub struct InvalidLoss {
    /// Index of the example.
    pub example: usize,
    /// The loss of that example.
    pub loss: f64,
    /// The declared kind of the losses.
    pub kind: LossKind,
}
