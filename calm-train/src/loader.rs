//! Makes batches ahead in a thread of their own, so that the step never waits for data.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use tch::Device;

use crate::batches::{Batch, BatchConfig, FrameTokens, collate, epoch_batches};
use crate::corpus::{Corpus, ExampleIndex};

/// Largest number of batches that wait. Each takes a few hundred kilobytes.
const AHEAD: usize = 8;

/// How to make batches.
#[derive(Debug, Clone, Copy)]
pub struct LoaderConfig {
    /// How examples are grouped.
    pub batch: BatchConfig,
    /// The tokens that frame the batches.
    pub frame: FrameTokens,
    /// The device that the batches go to.
    pub device: Device,
}

/// The endless sequence of a run's batches, from some batch on.
pub struct Loader {
    batches: Receiver<(f64, Batch)>,
    device: Device,
    waited: Duration,
}

impl Loader {
    /// Starts at the batch after the first `done` batches of the run.
    pub fn start(corpus: Arc<Corpus>, config: LoaderConfig, done: u64) -> Self {
        let (sender, batches) = sync_channel(AHEAD);
        // The thread ends when the receiver is dropped, since sending fails then.
        std::thread::spawn(move || {
            let mut order = BatchOrder::new(&corpus, config.batch, done);
            loop {
                let (epochs, members) = order.next(&corpus);
                let pairs: Vec<_> = members.into_iter().map(|index| corpus.pair(index)).collect();
                let mut batch = collate(&pairs, config.frame);
                if config.device.is_cuda() {
                    batch = batch.pinned(config.device);
                }
                if sender.send((epochs, batch)).is_err() {
                    break;
                }
            }
        });
        Loader { batches, device: config.device, waited: Duration::ZERO }
    }

    /// Returns the number of passes over the data done with this batch, and the batch on the device.
    pub fn next_batch(&mut self) -> (f64, Batch) {
        let start = Instant::now();
        let (epochs, batch) =
            self.batches.recv().expect("the thread sends for as long as it is received from");
        self.waited += start.elapsed();
        (epochs, batch.to_device(self.device))
    }

    /// Time that [`Loader::next_batch`] has waited since the last call of this function.
    pub fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

struct BatchOrder {
    config: BatchConfig,
    epoch: u64,
    batches: Vec<Vec<ExampleIndex>>,
    next: usize,
}

impl BatchOrder {
    /// Replays the epochs of the first `done` batches, since epochs may differ by a batch in length.
    fn new(corpus: &Corpus, config: BatchConfig, done: u64) -> Self {
        let mut order = BatchOrder { config, epoch: 0, batches: Vec::new(), next: 0 };
        let mut next = done as usize;
        loop {
            order.batches = order.epoch_batches(corpus);
            if next < order.batches.len() {
                order.next = next;
                return order;
            }
            next -= order.batches.len();
            order.epoch += 1;
        }
    }

    fn next(&mut self, corpus: &Corpus) -> (f64, Vec<ExampleIndex>) {
        while self.next == self.batches.len() {
            self.epoch += 1;
            self.batches = self.epoch_batches(corpus);
            self.next = 0;
        }
        self.next += 1;
        let epochs = self.epoch as f64 + self.next as f64 / self.batches.len() as f64;
        (epochs, std::mem::take(&mut self.batches[self.next - 1]))
    }

    fn epoch_batches(&self, corpus: &Corpus) -> Vec<Vec<ExampleIndex>> {
        epoch_batches(corpus.epoch(self.epoch), |index| corpus.length(index), &self.config, self.epoch)
    }
}
