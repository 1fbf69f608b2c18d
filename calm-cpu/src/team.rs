//! A few threads that stay awake between the operations of a token.
//!
//! A decoding step consists of some seventy operations of 5 to 500 microseconds each. Waking a thread takes
//! as long as a small one, so the threads of a team wait awake for their next operation, and go to sleep only
//! if none has come for a while. Threads that the system does not run are left out ([`Attendance`]).
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use calm_checkpoint::Teamwork;
use calm_core::profile::{self, Part};

use crate::attendance::Attendance;
use crate::linear::Rounded;

/// Number of looks at a flag before a waiting thread gives the core to others: tens of microseconds.
const SPINS: u32 = 1_000;
/// Number of times that a waiting thread gives its core away before it goes to sleep: milliseconds.
const YIELDS: u32 = 1_000;

/// More threads than these would not fit beside the number of a [`Call`].
const MOST_THREADS: usize = (1 << Call::BITS_OF_THREADS) - 1;

/// Memory that a thread keeps between operations.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) normed: Vec<f32>,
    pub(crate) rounded: Rounded,
    pub(crate) gates: [Vec<f32>; 2],
    pub(crate) scores: Vec<f32>,
    pub(crate) tokens: Vec<usize>,
    pub(crate) narrow: Vec<i8>,
}

/// The number of threads that this machine runs at the same time.
pub fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The calling thread and its helpers.
pub(crate) struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Number of threads that take part in operations at present.
    present: AtomicUsize,
    /// It is locked while an operation runs, so that there is only one at a time.
    own: Mutex<Own>,
    started: Instant,
}

/// What belongs to the operation that runs.
struct Own {
    /// The memory of each thread.
    scratch: Vec<Scratch>,
    attendance: Attendance,
}

struct Shared {
    /// The current [`Call`].
    call: Line<AtomicU64>,
    /// Number of helpers that have not finished it.
    pending: Line<AtomicUsize>,
    operation: Line<UnsafeCell<Option<Operation>>>,
    sleeping: Vec<Line<AtomicBool>>,
    closing: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// A value on a cache line of its own, so that writing it does not slow down those who read its neighbours.
#[repr(align(128))]
struct Line<T>(T);

/// Number of an operation, and of the threads that take part in it, in one word.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Call(u64);

impl Call {
    const BITS_OF_THREADS: u32 = 16;

    fn next(self, threads: usize) -> Self {
        Call((((self.0 >> Self::BITS_OF_THREADS) + 1) << Self::BITS_OF_THREADS) | threads as u64)
    }

    fn threads(self) -> usize {
        (self.0 & ((1 << Self::BITS_OF_THREADS) - 1)) as usize
    }
}

/// The function that the helpers call with their number.
///
/// Its lifetime is erased: [`Team::run`] does not return before all calls have.
#[derive(Clone, Copy)]
struct Operation(*const (dyn Fn(usize) + Sync));

// SAFETY: the pointer is followed only while `Team::run` keeps what it points to alive, and that is `Sync`.
unsafe impl Send for Operation {}
// SAFETY: `operation` is written by `Team::run` while no helper reads it: before the call that tells some to
// read it, and after all of these have reported. The others do not read it. Release and acquire of the call
// order the accesses.
unsafe impl Sync for Shared {}

impl Team {
    /// Starts a team of `threads` in all, at least one.
    pub(crate) fn new(threads: usize) -> Self {
        let threads = threads.clamp(1, MOST_THREADS);
        let shared = Arc::new(Shared {
            call: Line(AtomicU64::new(0)),
            pending: Line(AtomicUsize::new(0)),
            operation: Line(UnsafeCell::new(None)),
            sleeping: (1..threads).map(|_| Line(AtomicBool::new(false))).collect(),
            closing: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let helpers = (1..threads).map(|thread| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.help(thread))
        });
        let helpers = helpers.collect();
        let own = Own {
            scratch: (0..threads).map(|_| Scratch::default()).collect(),
            attendance: Attendance::new(threads),
        };
        let (present, own, started) = (AtomicUsize::new(threads), Mutex::new(own), Instant::now());
        Team { shared, helpers, present, own, started }
    }

    /// Number of threads that take part at present: into so many parts an operation is to be divided.
    pub(crate) fn threads(&self) -> usize {
        self.present.load(Ordering::Relaxed)
    }

    /// What the threads did together so far.
    pub(crate) fn teamwork(&self) -> Teamwork {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).attendance.teamwork()
    }

    /// Has a team work as if the system ran no more threads than these.
    #[cfg(test)]
    pub(crate) fn leave_out_all_but(&self, present: usize) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.attendance.leave_out_all_but(present);
        self.present.store(present, Ordering::Relaxed);
    }

    /// Calls `f` on every part, each thread on a part of its own, or on some if there are more parts than
    /// threads.
    pub(crate) fn each<T: Send>(&self, parts: &mut [T], f: impl Fn(&mut T, &mut Scratch) + Sync) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let Own { scratch, attendance } = &mut *own;
        let threads = attendance.present();
        let mut waited = Duration::ZERO;
        if threads == 1 || parts.len() <= 1 {
            parts.iter_mut().for_each(|part| f(part, &mut scratch[0]));
        } else {
            let (count, parts, scratch) =
                (parts.len(), Shareable(parts.as_mut_ptr()), Shareable(scratch.as_mut_ptr()));
            waited = self.run(threads, &|thread| {
                for part in (thread..count).step_by(threads) {
                    // SAFETY: every thread has another number below `threads`, so that no two have the same
                    // part or scratch, and both outlive `run`.
                    let (part, scratch) = unsafe { (&mut *parts.at(part), &mut *scratch.at(thread)) };
                    f(part, scratch);
                }
            });
        }
        attendance.count(waited, || self.started.elapsed());
        self.present.store(attendance.present(), Ordering::Relaxed);
    }

    /// Calls `operation` with the numbers below `threads`, each on another thread, and returns how long
    /// helpers were late.
    fn run(&self, threads: usize, operation: &(dyn Fn(usize) + Sync)) -> Duration {
        let shared = &*self.shared;
        // SAFETY: only the lifetime is erased. `Finish` waits for all helpers before this frame ends, also if
        // `operation` panics.
        let erased = Operation(unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync)>(operation)
        });
        // SAFETY: no helper reads it now, see `Shared`.
        unsafe { *shared.operation.0.get() = Some(erased) };
        shared.pending.0.store(threads - 1, Ordering::Relaxed);
        // Only this thread writes it, since it holds the lock of `own`.
        let call = Call(shared.call.0.load(Ordering::Relaxed)).next(threads);
        shared.call.0.store(call.0, Ordering::SeqCst);
        for (sleeping, helper) in shared.sleeping.iter().zip(&self.helpers).take(threads - 1) {
            if sleeping.0.load(Ordering::SeqCst) {
                helper.thread().unpark();
            }
        }
        let mut late = Duration::ZERO;
        let finish = Finish { shared, late: &mut late };
        operation(0);
        drop(finish);
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        late
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        let call = Call(self.shared.call.0.load(Ordering::Relaxed)).next(self.helpers.len() + 1);
        self.shared.call.0.store(call.0, Ordering::SeqCst);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // The helper's panics were caught, and raised where the operation was asked for.
            let _ = helper.join();
        }
    }
}

impl Shared {
    fn help(&self, thread: usize) {
        let mut seen = Call(0);
        loop {
            seen = self.wait_for_call(seen, thread);
            if self.closing.load(Ordering::SeqCst) {
                return;
            }
            if thread >= seen.threads() {
                continue;
            }
            // SAFETY: written before the call that was just seen, and not again before this helper reports.
            let Some(Operation(operation)) = (unsafe { *self.operation.0.get() }) else { continue };
            // SAFETY: `Team::run` keeps it alive until all helpers have reported.
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*operation)(thread) }));
            if let Err(panic) = result {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
            self.pending.0.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for another call than the one seen last, asleep if the helper was left out of that one.
    fn wait_for_call(&self, seen: Call, thread: usize) -> Call {
        let current = || Call(self.call.0.load(Ordering::SeqCst));
        let takes_part = thread < seen.threads() || seen == Call(0);
        if takes_part && wait_awake(|| current() != seen) {
            return current();
        }
        let sleeping = &self.sleeping[thread - 1].0;
        sleeping.store(true, Ordering::SeqCst);
        // A thread that writes a call after this look sees the flag; one that did so before is seen here.
        while current() == seen {
            std::thread::park();
        }
        sleeping.store(false, Ordering::SeqCst);
        current()
    }
}

/// Waits until all helpers have reported.
struct Finish<'a> {
    shared: &'a Shared,
    /// Receives the time after which the last one did, if that was long after this thread.
    late: &'a mut Duration,
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let done = || self.shared.pending.0.load(Ordering::Acquire) == 0;
        if done() {
            return;
        }
        let _part = profile::enter(Part::Waiting);
        if !spin(done) {
            let started = Instant::now();
            while !wait_awake(done) {}
            *self.late = started.elapsed();
        }
    }
}

/// Waits awake, and returns whether `done` came true before it was time to sleep.
fn wait_awake(done: impl Fn() -> bool) -> bool {
    if spin(&done) {
        return true;
    }
    for _ in 0..YIELDS {
        if done() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// Waits without giving the core to others, and returns whether `done` came true before it was time to.
fn spin(done: impl Fn() -> bool) -> bool {
    for _ in 0..SPINS {
        if done() {
            return true;
        }
        std::hint::spin_loop();
    }
    false
}

struct Shareable<T>(*mut T);

impl<T> Shareable<T> {
    fn at(&self, index: usize) -> *mut T {
        self.0.wrapping_add(index)
    }
}

// SAFETY: `Team::each` hands each element to one thread.
unsafe impl<T: Send> Sync for Shareable<T> {}

/// Some columns of a matrix that belong to one thread.
pub(crate) struct Columns<'a> {
    /// The first column of the first row.
    start: *mut f32,
    stride: usize,
    rows: usize,
    /// The columns of the matrix that belong to this part.
    pub(crate) range: Range<usize>,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: the parts are like the `&mut [f32]` that they were made of; no two of them overlap.
unsafe impl Send for Columns<'_> {}

impl<'a> Columns<'a> {
    /// Divides the rows of `matrix`, each `stride` long, at ascending `bounds`.
    pub(crate) fn split(matrix: &'a mut [f32], stride: usize, bounds: &[usize]) -> Vec<Columns<'a>> {
        let rows = matrix.len() / stride;
        assert!(bounds.is_sorted() && bounds.last().is_none_or(|&last| last <= stride), "not columns");
        let start = matrix.as_mut_ptr();
        let ranges = bounds.windows(2).map(|bounds| bounds[0]..bounds[1]);
        ranges.map(|range| Columns { start, stride, rows, range, matrix: PhantomData }).collect()
    }

    /// Returns the columns of a row that belong to this part.
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "no such row");
        // SAFETY: the row is inside the matrix, and its columns belong to this part alone.
        unsafe {
            let start = self.start.add(row * self.stride + self.range.start);
            std::slice::from_raw_parts_mut(start, self.range.len())
        }
    }
}

/// Finds where to divide `count` things among `parts`, as evenly as multiples of `unit` allow.
///
/// Empty parts are left out.
pub(crate) fn bounds(count: usize, unit: usize, parts: usize) -> Vec<usize> {
    let units = count.div_ceil(unit);
    let parts = parts.min(units).max(1);
    (0..=parts).map(|part| (units * part / parts * unit).min(count)).collect()
}
