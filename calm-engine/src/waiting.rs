//! Whether a thread got the core that it wanted. Where it did not, times are those of other programs too.

/// Share of a thread's time above which times mean little.
pub const BUSY: f64 = 0.05;

/// The seconds that this thread has waited for a core since it began, where the system keeps account of them.
pub fn seconds_waited() -> Option<f64> {
    // Nanoseconds on a core, nanoseconds of waiting for one, number of turns (Linux, sched-stats.rst).
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = statistics.split(' ').nth(1)?.parse().ok()?;
    Some(nanoseconds / 1e9)
}
