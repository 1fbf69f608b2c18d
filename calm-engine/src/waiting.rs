//! Whether a thread got the core that it wanted. Where it did not, times are those of other programs too.

/// Share of a thread's time above which times mean little.
pub const BUSY: f64 = 0.05;

/// Does some work, and says for how many seconds of it this thread waited for a core, where the system keeps
/// account of them.
pub fn with_seconds_waited<T>(work: impl FnOnce() -> T) -> (T, Option<f64>) {
    let before = seconds_waited();
    let done = work();
    (done, seconds_waited().zip(before).map(|(after, before)| after - before))
}

/// The seconds that this thread has waited for a core since it began.
fn seconds_waited() -> Option<f64> {
    // Nanoseconds on a core, nanoseconds of waiting for one, number of turns (Linux, sched-stats.rst).
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = statistics.split(' ').nth(1)?.parse().ok()?;
    Some(nanoseconds / 1e9)
}
