use crate::{ErrorProbability, LogP};

/// Several fixed sequences at once: from each of `starts` on, one hypothesis after the other at the level `epsilon / J` for
/// J starts, until its first that is not rejected. What any of them rejects is rejected (Learn then Test, section 2.2).
///
/// For sequences that may fail early and recover. The starts are fixed before seeing the losses; one that is not an index of
/// `log_p` takes its share of the level and finds nothing.
pub fn multi_start(log_p: &[LogP], starts: &[usize], epsilon: ErrorProbability) -> Vec<usize> {
    let level = epsilon.split(starts.len().max(1));
    let mut rejected = vec![false; log_p.len()];
    for &start in starts {
        for index in (start..log_p.len()).take_while(|&index| log_p[index].rejected_at(level)) {
            rejected[index] = true;
        }
    }
    (0..log_p.len()).filter(|&index| rejected[index]).collect()
}

/// `count` starts for `hypotheses` hypotheses, at equal distances from the first on; fewer if there are fewer hypotheses.
pub fn even_starts(count: usize, hypotheses: usize) -> Vec<usize> {
    let count = count.min(hypotheses);
    (0..count).map(|start| start * (hypotheses / count)).collect()
}
