//! What the server has done so far, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use calm_core::Generation;

/// Counters since the start.
#[derive(Default)]
pub(super) struct Metrics(Mutex<Counters>);

#[derive(Default)]
struct Counters {
    /// By their status.
    requests: BTreeMap<u16, u64>,
    in_batches: usize,
    batches: u64,
    sources: u64,
    tokens: u64,
    exit_layers: u64,
    executed_layers: u64,
    seconds: f64,
}

impl Metrics {
    pub(super) fn count_request(&self, status: u16) {
        *self.lock().requests.entry(status).or_default() += 1;
    }

    /// Counts the sources that are taken from the queue, until [`end_batch`](Self::end_batch).
    pub(super) fn begin_batch(&self, sources: usize) {
        self.lock().in_batches += sources;
    }

    pub(super) fn end_batch(&self, sources: usize) {
        self.lock().in_batches -= sources;
    }

    pub(super) fn count_batch(&self, generations: &[Generation]) {
        let mut counters = self.lock();
        counters.batches += 1;
        for generation in generations {
            counters.sources += 1;
            counters.tokens += generation.tokens.len() as u64;
            counters.exit_layers += generation.exit_layers.iter().sum::<usize>() as u64;
            counters.executed_layers += generation.executed_layers as u64;
            counters.seconds += generation.seconds;
        }
    }

    /// All metrics, with the number of sources that wait.
    pub(super) fn text(&self, waiting: usize) -> String {
        let counters = self.lock();
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
            // Writing into a string does not fail.
            let _ = writeln!(text, "# HELP calm_{name} {help}\n# TYPE calm_{name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "calm_{name}{labels} {value}");
            }
        };
        let requests: Vec<(String, f64)> = counters
            .requests
            .iter()
            .map(|(status, &count)| (format!("{{code=\"{status}\"}}"), count as f64))
            .collect();
        metric("requests_total", "counter", "Requests that were answered, by status.", &requests);
        let plain = |value: f64| [(String::new(), value)];
        metric("queue_sources", "gauge", "Sources that wait.", &plain(waiting as f64));
        let in_batches = plain(counters.in_batches as f64);
        metric("decoding_sources", "gauge", "Sources that are decoded now.", &in_batches);
        for (name, help, value) in [
            ("batches_total", "Batches decoded.", counters.batches as f64),
            ("sources_total", "Sources decoded: by batches, the rows of one.", counters.sources as f64),
            ("tokens_total", "Tokens decoded.", counters.tokens as f64),
            (
                "exit_layers_total",
                "Layers after which these tokens left: by tokens, the average layers.",
                counters.exit_layers as f64,
            ),
            (
                "executed_layers_total",
                "Layers that ran for these tokens, deferred ones and wrong drafts among them.",
                counters.executed_layers as f64,
            ),
            ("decoding_seconds_total", "Time of decoding, over all workers.", counters.seconds),
        ] {
            metric(name, "counter", help, &plain(value));
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
