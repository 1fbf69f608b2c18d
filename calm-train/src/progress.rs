//! What a run shows while it lasts: a progress bar for people, and `log.jsonl` for programs.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::Error;
use crate::curves::step_of_line;
use crate::validation::Validation;

/// Number of steps between two records of the log. Reading the loss waits for the device.
pub(crate) const LOG_EVERY: u64 = 20;

/// The progress of one stage of training.
pub(crate) struct Progress {
    bar: ProgressBar,
    stage: &'static str,
    log: Option<(PathBuf, File)>,
    interval_start: Instant,
    interval_tokens: usize,
    last_shown: Instant,
    first_step: u64,
    steps: u64,
    started: Instant,
}

/// One line of `log.jsonl`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StepRecord {
    /// Number of steps done.
    pub step: u64,
    /// Number of passes over the data done.
    pub epoch: f64,
    /// Negative log-likelihood per target token at the last exit, in nats; the mean since the last line.
    pub loss: f64,
    /// The same mean at each exit; `None` if no step since the last line computed it.
    pub exit_losses: Vec<Option<f64>>,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// The norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Share of the time since the last line in which the step waited for data.
    pub data_wait: f64,
}

#[derive(Serialize)]
struct LoggedStep {
    #[serde(flatten)]
    record: StepRecord,
    tokens_per_second: f64,
}

impl Progress {
    /// Appends to `DIR/log.jsonl`; `done` of `steps` steps were done before.
    ///
    /// # Errors
    /// Fails if the log cannot be read or written.
    pub(crate) fn new(dir: &Path, steps: u64, done: u64) -> Result<Self, Error> {
        let path = dir.join("log.jsonl");
        let file = reopen_log(&path, done)?;
        Ok(Progress { log: Some((path, file)), ..Progress::stage("backbone", steps, done) })
    }

    /// Creates the progress of the classifier's stage, which has no log.
    pub(crate) fn classifier(steps: u64) -> Self {
        Progress::stage("classifier", steps, 0)
    }

    /// Creates the progress of the training of exit heads, which has no log.
    pub(crate) fn heads(steps: u64, done: u64) -> Self {
        Progress::stage("exit heads", steps, done)
    }

    /// Creates the progress of recording the states of so many sources.
    pub(crate) fn states(sources: u64) -> Self {
        Progress::stage("states", sources, 0)
    }

    fn stage(stage: &'static str, steps: u64, done: u64) -> Self {
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg} [{elapsed} + {eta}]")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(steps).with_style(style).with_prefix(stage).with_position(done);
        bar.reset_eta();
        let now = Instant::now();
        Progress {
            bar,
            stage,
            log: None,
            interval_start: now,
            interval_tokens: 0,
            last_shown: now,
            first_step: done,
            steps,
            started: now,
        }
    }

    /// Sets the number of steps that the run will have.
    pub(crate) fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
        self.bar.set_length(steps);
    }

    /// Counts the target tokens of a step.
    pub(crate) fn count(&mut self, target_tokens: usize) {
        self.interval_tokens += target_tokens;
    }

    /// Logs a step and shows it. `waited` is the time since the last line in which the step waited for data.
    ///
    /// # Errors
    /// Fails if the log cannot be written.
    pub(crate) fn record(&mut self, mut record: StepRecord, waited: Duration) -> Result<(), Error> {
        record.data_wait = waited.as_secs_f64() / self.interval_start.elapsed().as_secs_f64();
        let tokens_per_second = self.show(record.step, record.loss);
        self.write(&LoggedStep { record, tokens_per_second })
    }

    /// Shows a step's loss, and returns the rate since the last call.
    pub(crate) fn show(&mut self, step: u64, loss: f64) -> f64 {
        self.show_with(step, &format!("loss {loss:.3}, "))
    }

    /// Shows how far something without a loss has come.
    pub(crate) fn show_rate(&mut self, step: u64) {
        self.show_with(step, "");
    }

    fn show_with(&mut self, step: u64, loss: &str) -> f64 {
        let rate = self.interval_tokens as f64 / self.interval_start.elapsed().as_secs_f64();
        self.interval_start = Instant::now();
        self.interval_tokens = 0;
        self.bar.set_position(step);
        self.bar.set_message(format!("{loss}{rate:.0} tokens/s"));
        // The bar hides itself if nobody watches. The log of the job has a line now and then instead.
        if !std::io::stderr().is_terminal() && self.last_shown.elapsed().as_secs() >= 10 {
            self.last_shown = Instant::now();
            let done = (step - self.first_step) as f64;
            let left = self.started.elapsed().as_secs_f64() / done * (self.steps - step) as f64;
            let (stage, steps) = (self.stage, self.steps);
            calm_files::tell(format_args!(
                "{stage} {step}/{steps}: {loss}{rate:.0} tokens/s, {:.0} min left",
                left / 60.0
            ));
        }
        rate
    }

    /// Logs and shows scores on held-out examples.
    ///
    /// # Errors
    /// Fails if the log cannot be written.
    pub(crate) fn validation(&mut self, step: u64, validation: &Validation) -> Result<(), Error> {
        self.bar.suspend(|| {
            calm_files::tell(format_args!("step {step}: held-out loss {:.4}", validation.loss));
            for task in &validation.tasks {
                calm_files::tell(format_args!("  {task}"));
            }
        });
        self.write(&serde_json::json!({ "step": step, "validation": validation }))?;
        self.interval_start = Instant::now();
        self.interval_tokens = 0;
        Ok(())
    }

    /// Ends the stage.
    pub(crate) fn finish(&self) {
        self.bar.finish();
    }

    fn write(&mut self, record: &impl Serialize) -> Result<(), Error> {
        let Some((path, file)) = &mut self.log else { return Ok(()) };
        serde_json::to_string(record)
            .map_err(std::io::Error::from)
            .and_then(|line| file.write_all((line + "\n").as_bytes()))
            .map_err(|source| calm_files::Error::write(path)(source).into())
    }
}

/// Says something about the run to the one who watches it.
pub(crate) fn note(text: impl std::fmt::Display) {
    calm_files::tell(format_args!("note: {text}"));
}

/// Drops what an interrupted run logged after its last checkpoint, since those steps are done again.
///
/// The last line of a killed run may also be incomplete, and what else is no line of the log could not be
/// drawn in the end.
fn reopen_log(path: &Path, done: u64) -> Result<File, calm_files::Error> {
    let log = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        log => log.map_err(calm_files::Error::read(path))?,
    };
    let kept = log.lines().filter(|line| step_of_line(line).is_some_and(|step| step <= done));
    calm_files::write(path, kept.map(|line| format!("{line}\n")).collect::<String>())?;
    File::options().append(true).open(path).map_err(calm_files::Error::write(path))
}
