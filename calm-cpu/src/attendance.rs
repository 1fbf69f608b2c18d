//! How many threads of a team take part: fewer while the system does not run all of them.
//!
//! Where another program keeps a core busy, the system lets a thread of the team wait for milliseconds,
//! seventy times as long as an operation takes, and the others wait for it. Such a team is slower than one
//! without that thread. It is left out when the time lost exceeds what it saves, and gets another chance
//! later.

use std::time::Duration;

use calm_checkpoint::Teamwork;

/// Number of operations without a wait between two looks at the clock.
const OPERATIONS: u32 = 64;
/// Least time over which waiting is judged. A thread that is interrupted once is no reason.
const WINDOW: Duration = Duration::from_millis(25);
/// Time after which a thread gets another chance, for the first time and at most.
///
/// It doubles with each chance in vain, since a chance costs a window.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(3)];

/// Keeps account of the waiting in a team.
pub(crate) struct Attendance {
    all: usize,
    present: usize,
    /// Least time of a window.
    least: Duration,
    /// When the window began, and what has happened in it.
    since: Duration,
    operations: u32,
    waited: Duration,
    /// When one more thread takes part again, if some are left out.
    retry: Duration,
    pause: Duration,
    teamwork: Teamwork,
}

impl Attendance {
    /// Begins with all threads.
    pub(crate) fn new(all: usize) -> Self {
        Attendance {
            all,
            present: all,
            least: WINDOW,
            since: Duration::ZERO,
            operations: 0,
            waited: Duration::ZERO,
            retry: Duration::ZERO,
            pause: PAUSES[0],
            teamwork: Teamwork::default(),
        }
    }

    /// Number of threads that take part.
    pub(crate) fn present(&self) -> usize {
        self.present
    }

    /// All operations so far.
    pub(crate) fn teamwork(&self) -> Teamwork {
        self.teamwork
    }

    /// Leaves threads out for good.
    #[cfg(test)]
    pub(crate) fn leave_out_all_but(&mut self, present: usize) {
        (self.present, self.least) = (present, Duration::MAX);
    }

    /// Takes in an operation whose caller `waited` for threads that were late. `clock` tells the time since
    /// any fixed moment.
    pub(crate) fn count(&mut self, waited: Duration, clock: impl FnOnce() -> Duration) {
        self.teamwork.operations += 1;
        self.teamwork.with_fewer += u64::from(self.present < self.all);
        self.waited += waited;
        self.operations += 1;
        // A look at the clock is nothing beside a wait.
        if self.operations < OPERATIONS && waited.is_zero() {
            return;
        }
        self.operations = 0;
        let now = clock();
        let window = now - self.since;
        // Of n threads one saves at most an n-th of the time, and small losses are not worth a change.
        let share = self.present.min(4) as u32;
        if self.present > 1 && self.waited * share > window.max(self.least) {
            self.present -= 1;
            self.retry = now + self.pause;
            self.pause = (2 * self.pause).min(PAUSES[1]);
        } else if window < self.least {
            return;
        } else if self.present == self.all {
            self.pause = (self.pause / 2).max(PAUSES[0]);
        } else if now >= self.retry {
            self.present += 1;
        }
        (self.since, self.waited) = (now, Duration::ZERO);
    }
}
