use crate::{ErrorProbability, LogP};

/// Tests every one of m hypotheses at the level `epsilon / m`, whatever their order and dependence.
pub fn bonferroni(log_p: &[LogP], epsilon: ErrorProbability) -> Vec<usize> {
    let level = epsilon.split(log_p.len().max(1));
    (0..log_p.len()).filter(|&i| log_p[i].rejected_at(level)).collect()
}
