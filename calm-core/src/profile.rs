//! Where the time of a call goes.
//!
//! The code of a [`Part`] says so by a [`Guard`]. [`record`] sums up how long its thread was in which part;
//! everywhere else a guard is a look at a flag of the thread. The time inside an inner guard is the inner
//! part's alone, so that the parts and what is outside of all guards add up to the whole:
//!
//! ```
//! use calm_core::profile::{Part, enter, record, within};
//!
//! let ((), profile) = record(|| {
//!     let _part = enter(Part::Loop);
//!     within(Part::Head, || std::hint::black_box(()));
//! });
//! let [all, head] = [Part::Loop, Part::Head].map(|part| profile.of(part));
//! assert_eq!(all.whole, all.own + head.own);
//! ```

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What a thread is doing in a call that reads sources and decodes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Part {
    /// Reading the sources.
    Encoder,
    /// Self-attention of the decoder's layers.
    SelfAttention,
    /// Attention to the sources, with the projection of what the encoder made of them.
    CrossAttention,
    /// Feed-forward networks of the decoder's layers.
    FeedForward,
    /// The output head, whoever asks: a test of an exit, or the prediction of a token.
    Head,
    /// What a policy does beside the head to decide who leaves.
    Confidence,
    /// Writing the K/V of layers that tokens skipped.
    Propagation,
    /// The rest of the decoding loop.
    Loop,
    /// The thread waits for others that share its work.
    Waiting,
}

calm_names::names!(Part, "part of a call", {
    Encoder => "encoder",
    SelfAttention => "self-attention",
    CrossAttention => "cross-attention",
    FeedForward => "feed-forward",
    Head => "head",
    Confidence => "confidence",
    Propagation => "propagation",
    Loop => "loop",
    Waiting => "waiting",
});

/// Where the time of one recording went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Profile {
    /// Time of all that was recorded.
    pub total: Duration,
    /// Exits that were tested, one for each token and layer.
    pub exit_tests: usize,
    spent: [Spent; Part::ALL.len()],
}

/// The time that went into one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Without the parts inside it.
    pub own: Duration,
    /// With the parts inside it.
    pub whole: Duration,
    /// How many times the thread came into it.
    pub times: usize,
}

impl Profile {
    /// What went into one part.
    pub fn of(&self, part: Part) -> Spent {
        self.spent[part as usize]
    }

    /// The time outside of all parts.
    pub fn outside(&self) -> Duration {
        self.total - self.spent.iter().map(|spent| spent.own).sum::<Duration>()
    }
}

thread_local! {
    /// Whether there is a recorder. It has no destructor, which makes a look at it a single load.
    static IS_ON: Cell<bool> = const { Cell::new(false) };
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// One recording in progress.
struct Recorder {
    /// Time since any moment before the recording.
    clock: Box<dyn FnMut() -> Duration>,
    /// The last look at the clock.
    seen: Duration,
    /// The innermost part that the thread is in.
    part: Option<Part>,
    profile: Profile,
}

impl Recorder {
    /// Counts the time since the last look at the clock for the part that ends now, and goes on in another.
    fn switch(&mut self, part: Option<Part>) {
        let now = (self.clock)();
        let passed = now - self.seen;
        self.profile.total += passed;
        if let Some(ending) = self.part {
            self.profile.spent[ending as usize].own += passed;
        }
        (self.seen, self.part) = (now, part);
    }
}

/// Says that the thread is in a part until this is dropped.
#[must_use]
pub struct Guard {
    /// `None` if nothing is recorded.
    around: Option<Around>,
    /// The recorder is the thread's.
    not_send: PhantomData<*const ()>,
}

/// What a guard's part is in.
struct Around {
    part: Option<Part>,
    /// The clock, when the guard's part began.
    since: Duration,
}

/// The thread is in `part` from now on until the guard is dropped. Entering the part that it is in already
/// changes nothing.
#[inline]
pub fn enter(part: Part) -> Guard {
    let around = if IS_ON.get() { begin(part) } else { None };
    Guard { around, not_send: PhantomData }
}

/// Runs `f` as `part`.
#[inline]
pub fn within<R>(part: Part, f: impl FnOnce() -> R) -> R {
    let _part = enter(part);
    f()
}

/// Counts tests of exits where they are recorded.
#[inline]
pub fn count_exit_tests(tests: impl FnOnce() -> usize) {
    if IS_ON.get() {
        let tests = tests();
        with_recorder(|recorder| recorder.profile.exit_tests += tests);
    }
}

/// Runs `f` and records where this thread's time goes. A recording inside another one keeps what it records
/// to itself.
pub fn record<R>(f: impl FnOnce() -> R) -> (R, Profile) {
    let started = Instant::now();
    record_by(move || started.elapsed(), f)
}

/// Records as [`record`] does, by any clock that does not go back.
pub fn record_by<R>(mut clock: impl FnMut() -> Duration + 'static, f: impl FnOnce() -> R) -> (R, Profile) {
    let seen = clock();
    let recorder = Recorder { clock: Box::new(clock), seen, part: None, profile: Profile::default() };
    let outer = Outer(RECORDER.replace(Some(recorder)));
    IS_ON.set(true);
    let result = f();
    let profile = with_recorder(|recorder| {
        recorder.switch(None);
        recorder.profile
    });
    drop(outer);
    (result, profile.unwrap_or_default())
}

/// The recording around one, which goes on when that one ends, also by a panic.
struct Outer(Option<Recorder>);

impl Drop for Outer {
    fn drop(&mut self) {
        IS_ON.set(self.0.is_some());
        RECORDER.replace(self.0.take());
    }
}

fn with_recorder<R>(f: impl FnOnce(&mut Recorder) -> R) -> Option<R> {
    RECORDER.with_borrow_mut(|recorder| recorder.as_mut().map(f))
}

fn begin(part: Part) -> Option<Around> {
    with_recorder(|recorder| {
        let around = recorder.part;
        if around == Some(part) {
            return None;
        }
        recorder.switch(Some(part));
        recorder.profile.spent[part as usize].times += 1;
        Some(Around { part: around, since: recorder.seen })
    })
    .flatten()
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        if let Some(around) = self.around.take() {
            end(around);
        }
    }
}

fn end(around: Around) {
    with_recorder(|recorder| {
        let ending = recorder.part;
        recorder.switch(around.part);
        if let Some(part) = ending {
            recorder.profile.spent[part as usize].whole += recorder.seen - around.since;
        }
    });
}
