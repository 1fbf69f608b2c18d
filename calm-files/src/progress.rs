//! How far a program has come, on standard error: a bar on a terminal, and elsewhere a line now and then.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::streams::{is_json, log_json, tell};

/// Between two lines where there is no terminal to draw a bar on.
const LINE_INTERVAL: Duration = Duration::from_secs(15);

/// What is done of something, and the time that is left.
pub struct Progress {
    doing: &'static str,
    /// What is counted, in the plural.
    things: &'static str,
    /// Unknown where things come as a stream.
    total: Option<usize>,
    bar: Option<ProgressBar>,
    state: Mutex<State>,
    started: Instant,
}

struct State {
    done: usize,
    last_line: Instant,
    /// What was done at the last line.
    written: usize,
}

/// A line for programs.
#[derive(Serialize)]
struct Event {
    doing: &'static str,
    things: &'static str,
    done: usize,
    total: Option<usize>,
    seconds: f64,
    seconds_left: Option<f64>,
}

impl Progress {
    /// Begins a display such as `decoding: 3/10 units, 1:05 left`.
    pub fn new(doing: &'static str, things: &'static str, total: Option<usize>) -> Self {
        let bar = (std::io::stderr().is_terminal() && !is_json()).then(|| {
            let (bar, form) = match total {
                Some(total) => (
                    ProgressBar::new(total as u64),
                    format!("{doing} {{wide_bar}} {{pos}}/{{len}} {things} [{{elapsed}}, {{eta}} left]"),
                ),
                None => (
                    ProgressBar::no_length(),
                    format!("{doing}: {{pos}} {things} [{{elapsed}}, {{per_sec}}]"),
                ),
            };
            bar.with_style(
                ProgressStyle::with_template(&form).unwrap_or_else(|_| ProgressStyle::default_bar()),
            )
        });
        let started = Instant::now();
        Self {
            doing,
            things,
            total,
            bar,
            state: Mutex::new(State { done: 0, last_line: started, written: 0 }),
            started,
        }
    }

    /// Some more are done.
    pub fn add(&self, count: usize) {
        let mut state = self.lock();
        state.done += count;
        if let Some(bar) = &self.bar {
            bar.set_position(state.done as u64);
        } else if state.last_line.elapsed() >= LINE_INTERVAL {
            state.last_line = Instant::now();
            state.written = state.done;
            self.write_line(state.done);
        }
    }

    /// Removes the bar, or writes the last line of several.
    pub fn finish(&self) {
        let state = self.lock();
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            // Where no line was written it took no time worth one, but a program waits for it.
            None if state.written < state.done && (state.written > 0 || is_json()) => {
                self.write_line(state.done);
            }
            None => {}
        }
    }

    fn write_line(&self, done: usize) {
        let Self { doing, things, total, .. } = *self;
        let seconds = self.started.elapsed().as_secs_f64();
        let left = |total: usize| seconds / done.max(1) as f64 * total.saturating_sub(done) as f64;
        let seconds_left = total.map(left);
        let line = match (total, seconds_left) {
            (Some(total), Some(_)) if done >= total => {
                format!("{doing}: {done}/{total} {things} in {}", minutes(seconds))
            }
            (Some(total), Some(left)) => format!("{doing}: {done}/{total} {things}, {} left", minutes(left)),
            _ => format!("{doing}: {done} {things} in {}", minutes(seconds)),
        };
        match is_json() {
            true => log_json("progress", &line, &Event { doing, things, done, total, seconds, seconds_left }),
            false => tell(line),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `1:05` for 65 seconds.
pub fn minutes(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
