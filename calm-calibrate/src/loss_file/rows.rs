//! Rows of a file in batches, decoded ahead of their use by other threads.

use std::fmt::Display;
use std::hash::Hash;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use super::error::{LossFileError, Place};

pub(super) const THRESHOLD: &str = "threshold";
pub(super) const EXAMPLE: &str = "example";
pub(super) const LOSS: &str = "loss";

/// Number of rows in a batch. Three columns of it fit into the second-level cache of a core.
pub(super) const BATCH: usize = 16 * 1024;

/// Number of batches that may lie ready for each thread that decodes.
const READY: usize = 3;

/// The name of an example, which is a number or a text.
pub(super) trait ExampleId: Clone + Default + Display + Hash + Ord + Send + Sync + 'static {}
impl ExampleId for i64 {}
impl ExampleId for String {}

/// The columns that a pass needs; the others are left empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Columns {
    Thresholds,
    All,
}

/// Successive rows, column by column.
#[derive(Debug, Default)]
pub(super) struct Batch<I> {
    pub(super) thresholds: Vec<f64>,
    pub(super) examples: Vec<I>,
    pub(super) losses: Vec<f64>,
    pub(super) places: Places,
}

/// Where the rows of a batch are in the file.
#[derive(Debug)]
pub(super) enum Places {
    /// The rows follow each other from this one on.
    RowsFrom(u64),
    /// The rows are on these lines, since a quoted text may span several lines.
    Lines(Vec<u64>),
}

impl Default for Places {
    fn default() -> Self {
        Places::RowsFrom(1)
    }
}

impl Places {
    pub(super) fn of(&self, index: usize) -> Place {
        match self {
            Places::RowsFrom(first) => Place::Row(first + index as u64),
            Places::Lines(lines) => Place::Line(lines[index]),
        }
    }
}

/// Finds the one column of this name among all `names` of a file.
pub(super) fn column_index(
    path: &Path,
    names: &[String],
    column: &'static str,
) -> Result<usize, LossFileError> {
    let path = || path.to_owned();
    let mut found = (0..names.len()).filter(|&index| names[index] == column);
    match (found.next(), found.next()) {
        (Some(index), None) => Ok(index),
        (Some(_), Some(_)) => Err(LossFileError::AmbiguousColumn { path: path(), column }),
        (None, _) => Err(LossFileError::MissingColumn { path: path(), column, available: names.to_vec() }),
    }
}

/// A file that is read in parts, which may be decoded at the same time.
pub(super) trait Source<I>: Sync {
    fn parts(&self) -> usize;

    fn open(&self, part: usize, columns: Columns) -> Result<Box<dyn Part<I> + '_>, LossFileError>;
}

/// The rest of a part that has not been read yet.
pub(super) trait Part<I> {
    /// Replaces the rows in `batch` by the next ones; there are none at the end of the part.
    fn fill(&mut self, batch: &mut Batch<I>) -> Result<(), LossFileError>;
}

/// Gives all rows to `consume` in the order of the file.
///
/// It stops at the first failure in that order, whichever thread it happens in.
pub(super) fn for_each_batch<I: ExampleId>(
    source: &dyn Source<I>,
    columns: Columns,
    mut consume: impl FnMut(&mut Batch<I>) -> Result<(), LossFileError>,
) -> Result<(), LossFileError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let decoders = source.parts().min(cores);
    thread::scope(|scope| {
        let inlets: Vec<Inlet<I>> = (0..decoders)
            .map(|decoder| {
                let (inlet, outlet) = connection();
                scope.spawn(move || {
                    for part in (decoder..source.parts()).step_by(decoders) {
                        if outlet.decode(source, part, columns).is_err() {
                            return;
                        }
                    }
                });
                inlet
            })
            .collect();
        // Returning early drops the inlets, which stops the decoders.
        for part in 0..source.parts() {
            let inlet = &inlets[part % decoders];
            // Without an answer a decoder has panicked, and so will the scope.
            while let Ok(answer) = inlet.ready.recv() {
                let mut batch = answer?;
                if batch.thresholds.is_empty() {
                    break;
                }
                consume(&mut batch)?;
                // A decoder that has finished takes no buffers back.
                let _ = inlet.used.send(batch);
            }
        }
        Ok(())
    })
}

/// The consumer's end of a connection to a decoder.
struct Inlet<I> {
    ready: Receiver<Result<Batch<I>, LossFileError>>,
    used: Sender<Batch<I>>,
}

/// The decoder's end of the connection. Batches go back and forth, so that their memory is allocated once.
struct Outlet<I> {
    ready: SyncSender<Result<Batch<I>, LossFileError>>,
    used: Receiver<Batch<I>>,
}

fn connection<I>() -> (Inlet<I>, Outlet<I>) {
    let (to_consumer, ready) = sync_channel(READY);
    let (used, from_consumer) = channel();
    (Inlet { ready, used }, Outlet { ready: to_consumer, used: from_consumer })
}

/// Signal that nobody wants more rows.
struct Stop;

impl<I: ExampleId> Outlet<I> {
    /// Sends the rows of a part, then an empty batch.
    fn decode(&self, source: &dyn Source<I>, part: usize, columns: Columns) -> Result<(), Stop> {
        let mut rows = source.open(part, columns).map_err(|error| self.fail(error))?;
        loop {
            let mut batch = self.used.try_recv().unwrap_or_default();
            rows.fill(&mut batch).map_err(|error| self.fail(error))?;
            let is_end = batch.thresholds.is_empty();
            self.ready.send(Ok(batch)).map_err(|_| Stop)?;
            if is_end {
                return Ok(());
            }
        }
    }

    fn fail(&self, error: LossFileError) -> Stop {
        // If nobody listens, another error came first.
        let _ = self.ready.send(Err(error));
        Stop
    }
}
