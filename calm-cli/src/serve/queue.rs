//! The sources that wait, of all requests, and the threads that decode them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use calm_checkpoint::Model;
use calm_core::{DecodeOptions, Generation, Policy, Token};
use calm_engine::decoding::decode_batch;
use calm_files::catch_panic;
use tokio::sync::oneshot;

use super::Server;
use crate::lines::Source;

/// The line of an output, or why there is none.
pub(super) type Answer = Result<Vec<u8>, String>;

/// A source that waits.
struct Job {
    source: Source,
    answer: oneshot::Sender<Answer>,
}

impl Job {
    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }
}

/// The sources that wait. Requests that come while there are `places` of them are refused.
pub(super) struct Queue {
    places: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The oldest first.
    jobs: Vec<Job>,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new(places: usize) -> Self {
        let state = State { jobs: Vec::new(), is_closed: false };
        Self { places, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Whether a request is refused that comes now.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.places
    }

    /// Has a source wait until it is answered. If the answer is dropped, so is the source.
    pub(super) async fn answer(&self, source: Source) -> Answer {
        self.enter(source).await.unwrap_or_else(|_| Err("nothing decodes any more".to_owned()))
    }

    fn enter(&self, source: Source) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        self.lock().jobs.push(Job { source, answer });
        self.changed.notify_one();
        receiver
    }

    /// Number of the sources that wait.
    pub(super) fn len(&self) -> usize {
        let mut state = self.lock();
        state.jobs.retain(|job| !job.is_abandoned());
        state.jobs.len()
    }

    /// Ends the workers once nothing waits.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Waits for sources, and takes the oldest one with those that are nearest to it in length, at most
    /// `most` in all. `None` once the queue is closed and empty.
    fn take(&self, most: usize) -> Option<Vec<Job>> {
        let mut state = self.lock();
        loop {
            state.jobs.retain(|job| !job.is_abandoned());
            if let Some(oldest) = state.jobs.first() {
                let length = oldest.source.tokens.len();
                let mut order: Vec<usize> = (0..state.jobs.len()).collect();
                order.sort_by_key(|&index| state.jobs[index].source.tokens.len().abs_diff(length));
                let mut is_taken = vec![false; order.len()];
                order.iter().take(most).for_each(|&index| is_taken[index] = true);
                let mut is_taken = is_taken.into_iter();
                return Some(state.jobs.extract_if(.., |_| is_taken.next() == Some(true)).collect());
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Decodes what waits, a batch at a time, until the queue is closed.
pub(super) fn work(server: &Server, model: &dyn Model, policy: &dyn Policy) {
    model.enter_thread();
    while let Some(jobs) = server.queue.take(server.settings.batch_size) {
        let (sources, answers): (Vec<Source>, Vec<_>) =
            jobs.into_iter().map(|job| (job.source, job.answer)).unzip();
        server.metrics.begin_batch(sources.len());
        let tokens: Vec<&[Token]> = sources.iter().map(|source| source.tokens.as_slice()).collect();
        let generations = decode_rows(server, model, policy, &tokens);
        for ((source, answer), generation) in sources.iter().zip(answers).zip(generations) {
            let codec = server.codec.as_deref();
            let line = generation.and_then(|generation| {
                source.output_line(codec, &generation).map_err(|error| format!("{error:#}"))
            });
            // Whoever asked may have gone.
            let _ = answer.send(line);
        }
        server.metrics.end_batch(sources.len());
    }
}

/// Decodes a batch. Where that fails, each of its rows alone: an answer does not depend on what it waited
/// with, and no more does an error.
fn decode_rows(
    server: &Server,
    model: &dyn Model,
    policy: &dyn Policy,
    rows: &[&[Token]],
) -> Vec<Result<Generation, String>> {
    let options = DecodeOptions::new(server.settings.max_tokens);
    let decoded = catch_panic(|| decode_batch(model, rows, policy, &options, server.settings.draws));
    match decoded.and_then(|decoded| decoded.map_err(|error| error.to_string())) {
        Ok(generations) => {
            server.metrics.count_batch(&generations);
            generations.into_iter().map(Ok).collect()
        }
        Err(error) if rows.len() == 1 => vec![Err(error)],
        Err(_) => rows.iter().flat_map(|row| decode_rows(server, model, policy, &[row])).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::SystemTime;

    use super::*;
    use crate::lines::Texts;

    fn source(length: usize) -> Source {
        let (model, now) = (Path::new("model"), SystemTime::UNIX_EPOCH);
        let texts = Texts { model, codec: None, prefix: "", chat: false, now };
        let line = format!("{{\"input_ids\": {:?}}}", vec![1; length]);
        texts.source(serde_json::from_str(&line).unwrap()).unwrap()
    }

    #[test]
    fn the_oldest_is_taken_with_its_like_and_whoever_has_gone_is_not() {
        let queue = Queue::new(5);
        let take = |most| -> Vec<usize> {
            queue.take(most).unwrap().iter().map(|job| job.source.tokens.len()).collect()
        };
        let mut answers: Vec<_> =
            [5, 9, 1, 5, 8, 7].into_iter().map(|length| queue.enter(source(length))).collect();
        assert!(queue.is_full());
        drop(answers.pop());
        assert_eq!(take(2), [5, 5]);
        assert!(!queue.is_full());
        assert_eq!(take(2), [9, 8]);
        queue.close();
        assert_eq!(take(2), [1]);
        drop(queue.enter(source(3)));
        assert!(queue.take(2).is_none());
    }
}
