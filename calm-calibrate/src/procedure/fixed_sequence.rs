use crate::{ErrorProbability, LogP};

/// Tests one hypothesis after the other at the full level `epsilon`, until one is not rejected.
///
/// Nothing after it counts, however small its p-value (CALM's algorithm 1; Learn then Test, section 2.2).
///
/// The number of tests costs no level, because the first true hypothesis of the sequence is the only one that
/// can be rejected falsely without an earlier mistake. So the order must not depend on the losses; the losses
/// themselves need not be monotone along it.
pub fn fixed_sequence(log_p: &[LogP], epsilon: ErrorProbability) -> Vec<usize> {
    (0..log_p.len()).take_while(|&i| log_p[i].rejected_at(epsilon)).collect()
}
