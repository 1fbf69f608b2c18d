use crate::{ErrorProbability, LogP};

/// Tests several fixed sequences at once (Learn then Test, section 2.2).
///
/// From each of J starts on, one hypothesis after the other is tested at the level `epsilon / J`, until the
/// first one that is not rejected. A hypothesis is rejected if any of the sequences rejects it.
///
/// It is meant for sequences that may fail early and recover. The starts are fixed before seeing the losses;
/// one that is not an index of `log_p` takes its share of the level and finds nothing.
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

/// Places `count` starts among `hypotheses` hypotheses, at equal distances and beginning with the first one.
///
/// There are fewer starts if there are fewer hypotheses.
pub fn even_starts(count: usize, hypotheses: usize) -> Vec<usize> {
    let count = count.min(hypotheses);
    (0..count).map(|start| start * (hypotheses / count)).collect()
}
