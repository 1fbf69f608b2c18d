use crate::{ErrorProbability, LogP};

/// One hypothesis after the other, each at the full level `epsilon`, until the first that is not rejected; nothing after
/// it counts, however small its p-value (CALM's algorithm 1; Learn then Test, section 2.2).
///
/// No level is spent on the number of tests, because the first true hypothesis of the sequence is the only one that can
/// be rejected falsely without an earlier mistake. So the order must not depend on the losses; the losses themselves
/// need not be monotone along it.
pub fn fixed_sequence(log_p: &[LogP], epsilon: ErrorProbability) -> Vec<usize> {
    (0..log_p.len()).take_while(|&i| log_p[i].rejected_at(epsilon)).collect()
}
