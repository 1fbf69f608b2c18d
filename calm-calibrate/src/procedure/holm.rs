use crate::{ErrorProbability, LogP};

/// Tests the hypotheses in the order of their p-values, at levels that rise (Holm 1979).
///
/// The smallest one is tested at the level `epsilon / m`, the next at `epsilon / (m - 1)` and so on, until
/// the first one that is not rejected.
///
/// It rejects whatever [`bonferroni`](super::bonferroni()) rejects, and assumes nothing more.
pub fn holm(log_p: &[LogP], epsilon: ErrorProbability) -> Vec<usize> {
    let mut by_p: Vec<usize> = (0..log_p.len()).collect();
    by_p.sort_by(|&a, &b| log_p[a].ln().total_cmp(&log_p[b].ln()));
    let passed = (0..by_p.len()).take_while(|&rank| {
        let remaining = by_p.len() - rank;
        log_p[by_p[rank]].rejected_at(epsilon.split(remaining))
    });
    let passed = passed.count();
    by_p.truncate(passed);
    by_p.sort_unstable();
    by_p
}
