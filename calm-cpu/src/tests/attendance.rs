use std::time::Duration;

use crate::attendance::Attendance;

const OPERATION: Duration = Duration::from_micros(50);

/// A team at work, with a clock of its own.
struct Work {
    attendance: Attendance,
    now: Duration,
}

impl Work {
    fn new(threads: usize) -> Self {
        Work { attendance: Attendance::new(threads), now: Duration::ZERO }
    }

    /// Runs operations for some time, of which each `n`th waits `late` if there are several threads, and
    /// returns how many take part in the end.
    fn go_on(&mut self, time: Duration, n: u64, late: Duration) -> usize {
        let end = self.now + time;
        for operation in 1_u64.. {
            let waits = operation.is_multiple_of(n) && self.attendance.present() > 1;
            let waited = if waits { late } else { Duration::ZERO };
            self.now += OPERATION + waited;
            self.attendance.count(waited, || self.now);
            if self.now >= end {
                break;
            }
        }
        self.attendance.present()
    }
}

const SECOND: Duration = Duration::from_secs(1);
const SLICE: Duration = Duration::from_millis(3);

#[test]
fn a_thread_that_does_not_run_is_left_out() {
    for threads in [2, 3, 8] {
        let mut work = Work::new(threads);
        work.go_on(2 * SECOND, 20, SLICE);
        let teamwork = work.attendance.teamwork();
        let full = (teamwork.operations - teamwork.with_fewer) as f64;
        assert!(full < 0.05 * teamwork.operations as f64, "{threads}: {teamwork:?}");
        assert!(work.attendance.present() < threads);
    }
}

#[test]
fn little_waiting_changes_nothing() {
    // An interruption of 20 ms now and then, and many waits that lose a fifth of the time together.
    for (n, late) in
        [(100_000, Duration::from_millis(10)), (20, Duration::from_micros(250)), (1, OPERATION / 5)]
    {
        let mut work = Work::new(2);
        assert_eq!(work.go_on(20 * SECOND, n, late), 2, "{n}");
        assert_eq!(work.attendance.teamwork().with_fewer, 0, "{n}");
    }
}

/// The chances in vain become rare, and all threads are back soon after the machine is free.
#[test]
fn threads_come_back_when_they_run_again() {
    let mut work = Work::new(3);
    work.go_on(20 * SECOND, 10, SLICE);
    let before = work.attendance.teamwork();
    work.go_on(20 * SECOND, 10, SLICE);
    let after = work.attendance.teamwork();
    let full = (after.operations - before.operations) - (after.with_fewer - before.with_fewer);
    assert!(full < (after.operations - before.operations) / 100, "{full} operations waited");
    assert_eq!(work.go_on(4 * SECOND, u64::MAX, SLICE), 3);
}
