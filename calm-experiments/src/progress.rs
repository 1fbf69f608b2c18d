//! What a run shows while it decodes.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines where there is no terminal to draw a bar on.
const LINE_INTERVAL: Duration = Duration::from_secs(15);

/// Units done and time left, on stderr.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    state: Mutex<State>,
    total: usize,
    started: Instant,
}

struct State {
    done: usize,
    last_line: Instant,
}

impl Progress {
    /// Begins a display for `total` units.
    pub(crate) fn new(total: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("decoding {wide_bar} {pos}/{len} units [{elapsed}, {eta} left]");
            ProgressBar::new(total as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let now = Instant::now();
        Self { bar, state: Mutex::new(State { done: 0, last_line: now }), total, started: now }
    }

    /// Another unit is done.
    pub(crate) fn unit_done(&self) {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.done += 1;
        if let Some(bar) = &self.bar {
            bar.set_position(state.done as u64);
        } else if state.last_line.elapsed() >= LINE_INTERVAL || state.done == self.total {
            state.last_line = Instant::now();
            let (done, total) = (state.done, self.total);
            let left = self.started.elapsed().as_secs_f64() / done as f64 * (total - done) as f64;
            calm_files::tell(format_args!("decoding: {done}/{total} units, {} left", minutes(left)));
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `1:05` for 65 seconds.
pub(crate) fn minutes(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
