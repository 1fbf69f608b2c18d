use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::path::Path;

use super::error::{LossFileError, Place};
use super::grid::Grid;
use super::rows::{Batch, ExampleId, LOSS};
use crate::calibrate::{Calibrator, FULL_MODEL, is_full_model_loss};
use crate::{Error, LossKind, exceeds};

/// Number of losses of a threshold that are passed on at a time when the file alternates between thresholds.
const PIECE: usize = 256;

/// Receives the losses of each threshold in the order of the examples.
pub(super) trait Sink {
    fn push(&mut self, threshold_index: usize, losses: &[f64]) -> Result<(), Error>;
}

impl Sink for Calibrator {
    fn push(&mut self, threshold_index: usize, losses: &[f64]) -> Result<(), Error> {
        Calibrator::push(self, threshold_index, losses)
    }
}

/// Keeps the losses as they are, in a list for each threshold.
impl Sink for Vec<Vec<f64>> {
    fn push(&mut self, threshold_index: usize, losses: &[f64]) -> Result<(), Error> {
        self[threshold_index].extend_from_slice(losses);
        Ok(())
    }
}

/// How to read the losses of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// A limit: each loss is replaced by whether it exceeds it.
    pub(super) limit: Option<f64>,
    /// The declared kind of the losses; `None` allows any number.
    pub(super) kind: Option<LossKind>,
}

impl Expected {
    /// Whether no range says what a loss can be.
    fn takes_any_number(&self) -> bool {
        self.kind.is_none() || self.limit.is_some()
    }
}

/// Puts rows of any order into the order in which the examples first appear in the file.
///
/// What comes in that order goes straight to the sink; of the other losses only those that came too early are
/// kept.
pub(super) struct Collector<'a, I, S> {
    path: &'a Path,
    grid: &'a Grid,
    expected: Expected,
    order: Order<I>,
    progress: Vec<Progress>,
    last_threshold: usize,
    /// Receiver of the losses; `None` as soon as a row is known to be missing.
    ///
    /// The other rows are still read, to name the first example without a loss.
    sink: Option<S>,
}

/// How many losses of a threshold have come.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// Number of examples at the start of the order that have their loss.
    in_order: usize,
    /// Losses of later examples, from number `in_order` on; NaN where there are none yet. The first one is
    /// always NaN.
    early: VecDeque<f64>,
    /// Losses in order that wait for the sink.
    waiting: Vec<f64>,
}

impl<'a, I: ExampleId, S: Sink> Collector<'a, I, S> {
    pub(super) fn new(path: &'a Path, grid: &'a Grid, expected: Expected, sink: Option<S>) -> Self {
        let progress = vec![Progress::default(); grid.thresholds.len()];
        Self { path, grid, expected, order: Order::new(), progress, last_threshold: 0, sink }
    }

    /// Takes the next rows of the file.
    ///
    /// Fails on a loss that is not as expected and on a second one for the same example and threshold.
    pub(super) fn push(&mut self, batch: &mut Batch<I>) -> Result<(), LossFileError> {
        let mut start = 0;
        while let Some(&threshold) = batch.thresholds.get(start) {
            let run = batch.thresholds[start..].iter().take_while(|&&other| other == threshold).count();
            // In a file that alternates, the threshold after the last one is likely to come next.
            let guess = (self.last_threshold + 1) % self.grid.thresholds.len();
            let threshold_index = self
                .grid
                .index_of(threshold, guess)
                .ok_or_else(|| LossFileError::Changed { path: self.path.to_owned() })?;
            self.last_threshold = threshold_index;
            self.check_losses(threshold, batch, start..start + run)?;
            self.push_run(threshold_index, batch, start..start + run)?;
            start += run;
        }
        Ok(())
    }

    /// Returns the sink, which has all losses now. Fails if an example lacks one.
    pub(super) fn finish(mut self) -> Result<S, LossFileError> {
        // For each threshold, the first example without a loss is the one after those that have theirs in
        // order.
        let least = self.progress.iter().enumerate().min_by_key(|(_, progress)| progress.in_order);
        if let Some((threshold_index, progress)) = least
            && let Some(example) = self.order.ids.get(progress.in_order)
        {
            let (path, example) = (self.path.to_owned(), example.to_string());
            return Err(LossFileError::MissingLoss {
                path,
                example,
                threshold: self.grid.thresholds[threshold_index],
            });
        }
        // There are fewer rows than the first pass counted.
        let mut sink =
            self.sink.take().ok_or_else(|| LossFileError::Changed { path: self.path.to_owned() })?;
        for (threshold_index, progress) in self.progress.iter().enumerate() {
            sink.push(threshold_index, &progress.waiting).map_err(LossFileError::calibration(self.path))?;
        }
        Ok(sink)
    }

    /// Checks the losses, and applies the limit, except to the full model, whose loss of 0 is a definition.
    fn check_losses(
        &self,
        threshold: f64,
        batch: &mut Batch<I>,
        rows: Range<usize>,
    ) -> Result<(), LossFileError> {
        let losses = &mut batch.losses[rows.clone()];
        // A missing loss is above no limit, and below none. An infinite one can be compared.
        let is_number =
            |loss: f64| if self.expected.limit.is_some() { !loss.is_nan() } else { loss.is_finite() };
        let not_a_number = losses.iter().position(|&loss| !is_number(loss));
        if let Some(index) = not_a_number.filter(|_| self.expected.takes_any_number()) {
            let (path, place) = (self.path.to_owned(), batch.places.of(rows.start + index));
            let message = format!("{} is not a number", batch.losses[rows.start + index]);
            return Err(LossFileError::Cell { path, place, column: LOSS, message });
        }
        if let Some(limit) = self.expected.limit
            && threshold != FULL_MODEL
        {
            losses.iter_mut().for_each(|loss| *loss = exceeds(*loss, limit));
        }
        let Some(kind) = self.expected.kind else { return Ok(()) };
        let invalid = if threshold == FULL_MODEL {
            losses.iter().position(|&loss| !is_full_model_loss(loss))
        } else {
            kind.check(losses, 0).err().map(|invalid| invalid.example)
        };
        let Some(index) = invalid.map(|index| rows.start + index) else { return Ok(()) };
        let (path, place, loss) = (self.path.to_owned(), batch.places.of(index), batch.losses[index]);
        let example = batch.examples[index].to_string();
        Err(if threshold == FULL_MODEL {
            LossFileError::FullModelLoss { path, place, example, loss }
        } else {
            LossFileError::InvalidLoss { path, place, example, threshold, loss, kind }
        })
    }

    /// Takes rows of one threshold.
    fn push_run(
        &mut self,
        threshold_index: usize,
        batch: &Batch<I>,
        rows: Range<usize>,
    ) -> Result<(), LossFileError> {
        let mut next = rows.start;
        while next < rows.end {
            let progress = &mut self.progress[threshold_index];
            let examples = &batch.examples[next..rows.end];
            let in_order = if progress.early.is_empty() {
                self.order.extend_or_match(progress.in_order, examples)
            } else {
                0
            };
            if in_order > 0 {
                progress.in_order += in_order;
                self.send(threshold_index, &batch.losses[next..next + in_order])?;
                next += in_order;
            } else {
                let (example, loss) = (&batch.examples[next], batch.losses[next]);
                self.push_one(threshold_index, example, loss, batch.places.of(next))?;
                next += 1;
            }
        }
        Ok(())
    }

    /// Takes a row that may be out of order.
    fn push_one(
        &mut self,
        threshold_index: usize,
        example: &I,
        loss: f64,
        place: Place,
    ) -> Result<(), LossFileError> {
        let number = self.order.number_of(example);
        let Progress { in_order, early, .. } = &mut self.progress[threshold_index];
        let distance = number.checked_sub(*in_order);
        let Some(distance) =
            distance.filter(|&distance| early.get(distance).is_none_or(|loss| loss.is_nan()))
        else {
            return Err(LossFileError::Duplicate {
                path: self.path.to_owned(),
                place,
                example: example.to_string(),
                threshold: self.grid.thresholds[threshold_index],
            });
        };
        if distance > 0 || !early.is_empty() {
            early.resize(early.len().max(distance + 1), f64::NAN);
            early[distance] = loss;
        }
        if distance == 0 {
            early.pop_front();
            let mut freed = vec![loss];
            while let Some(&loss) = early.front()
                && !loss.is_nan()
            {
                freed.push(loss);
                early.pop_front();
            }
            *in_order += freed.len();
            self.send(threshold_index, &freed)?;
        }
        Ok(())
    }

    fn send(&mut self, threshold_index: usize, losses: &[f64]) -> Result<(), LossFileError> {
        if self.grid.examples().is_none_or(|examples| self.order.ids.len() > examples) {
            self.sink = None;
        }
        let Some(sink) = &mut self.sink else { return Ok(()) };
        let waiting = &mut self.progress[threshold_index].waiting;
        let pushed = if waiting.is_empty() && losses.len() >= PIECE {
            sink.push(threshold_index, losses)
        } else {
            waiting.extend_from_slice(losses);
            if waiting.len() < PIECE {
                return Ok(());
            }
            let pushed = sink.push(threshold_index, waiting);
            waiting.clear();
            pushed
        };
        pushed.map_err(LossFileError::calibration(self.path))
    }
}

/// The examples in the order of their first appearance.
struct Order<I> {
    ids: Vec<I>,
    /// The number of each example.
    ///
    /// It is not needed as long as the examples ascend: then they are plainly all different, and a binary
    /// search finds them.
    numbers: Option<HashMap<I, usize>>,
}

impl<I: ExampleId> Order<I> {
    fn new() -> Self {
        Self { ids: Vec::new(), numbers: None }
    }

    /// Counts how many of `examples` are, one after the other, those of the order from number `first` on.
    ///
    /// At the end of the order, examples that are new beyond doubt are added to it.
    fn extend_or_match(&mut self, first: usize, examples: &[I]) -> usize {
        let known = &self.ids[first..];
        if !known.is_empty() {
            let known = &known[..known.len().min(examples.len())];
            // Comparing whole slices is several times faster than one example after the other.
            return if known == &examples[..known.len()] {
                known.len()
            } else {
                known.iter().zip(examples).take_while(|(known, example)| known == example).count()
            };
        }
        if self.numbers.is_some() || self.ids.last().is_some_and(|last| examples[0] <= *last) {
            return 0;
        }
        let ascending = 1 + examples.windows(2).take_while(|pair| pair[0] < pair[1]).count();
        self.ids.extend_from_slice(&examples[..ascending]);
        ascending
    }

    /// Finds the number of an example, which is added if it is new.
    fn number_of(&mut self, example: &I) -> usize {
        let ascends = self.ids.last().is_none_or(|last| example > last);
        if self.numbers.is_none() {
            if let Ok(number) = self.ids.binary_search(example) {
                return number;
            }
            if !ascends {
                self.numbers =
                    Some(self.ids.iter().cloned().enumerate().map(|(number, id)| (id, number)).collect());
            }
        }
        let next = self.ids.len();
        if let Some(numbers) = &mut self.numbers {
            if let Some(&number) = numbers.get(example) {
                return number;
            }
            numbers.insert(example.clone(), next);
        }
        self.ids.push(example.clone());
        next
    }
}
