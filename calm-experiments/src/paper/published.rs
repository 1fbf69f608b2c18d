//! The numbers of the paper: Schuster et al., Confident Adaptive Language Modeling, NeurIPS 2022
//! (arXiv 2207.07061v2). Those of figures are not in its text and so are not here.

use crate::config::PaperDataset;

/// The datasets in the order of the paper's tables.
pub(super) const DATASETS: [PaperDataset; 3] = [PaperDataset::CnnDm, PaperDataset::Wmt, PaperDataset::Squad];

/// The name of a dataset in the paper.
pub(super) fn name_of(dataset: PaperDataset) -> &'static str {
    match dataset {
        PaperDataset::CnnDm => "CNN/DM",
        PaperDataset::Wmt => "WMT",
        PaperDataset::Squad => "SQuAD",
    }
}

/// Table 1: the mean length of the targets in tokens, and the 5th and 95th percentile.
pub(super) fn target_lengths(dataset: PaperDataset) -> [usize; 3] {
    match dataset {
        PaperDataset::CnnDm => [82, 42, 141],
        PaperDataset::Wmt => [39, 10, 82],
        PaperDataset::Squad => [5, 1, 13],
    }
}

/// Section 6: average layers of the oracle, at no loss of quality.
pub(super) fn oracle_layers(dataset: PaperDataset) -> f64 {
    match dataset {
        PaperDataset::CnnDm => 1.5,
        PaperDataset::Wmt => 1.3,
        PaperDataset::Squad => 1.2,
    }
}

/// A row of section 3.3's experiment on CNN/DM: the policy that does the same here, what it is, ROUGE-L, and
/// average layers where the paper has them.
pub(super) const PROPAGATION: [(&str, &str, f64, Option<f64>); 4] = [
    ("full", "all layers", 38.32, Some(8.0)),
    ("oracle", "oracle exits, the exit's state goes on", 38.24, Some(1.53)),
    ("shallow-cache-1", "tokens of the last layer, caches of the first layer's state", 38.31, None),
    ("oracle-copied", "oracle exits, the exit's keys and values are copied", 23.02, None),
];

/// Average layers, how many times fewer FLOPs, and speed-up.
pub(super) type Cell = [f64; 3];

/// A row of table 2: objective, tolerance, measure, and a cell for each dataset.
pub(super) const TABLE_2: [(&str, f64, &str, [Cell; 3]); 12] = [
    ("textual", 0.1, "softmax", [[5.73, 0.44, 1.41], [3.35, 0.66, 2.01], [1.65, 3.15, 1.63]]),
    ("textual", 0.1, "state", [[8.00, 1.00, 1.00], [7.68, 1.01, 1.00], [2.00, 3.65, 1.68]]),
    ("textual", 0.1, "classifier", [[7.16, 1.03, 1.42], [5.50, 1.06, 2.05], [2.59, 2.37, 1.10]]),
    ("textual", 0.25, "softmax", [[2.62, 0.49, 2.57], [1.76, 0.91, 2.83], [1.03, 5.68, 1.88]]),
    ("textual", 0.25, "state", [[7.97, 1.00, 1.01], [2.84, 1.93, 1.55], [2.00, 3.65, 1.68]]),
    ("textual", 0.25, "classifier", [[4.51, 1.15, 2.04], [2.97, 1.22, 2.00], [1.37, 5.09, 1.11]]),
    ("risk", 0.02, "softmax", [[3.75, 0.47, 1.96], [3.19, 0.67, 2.10], [1.65, 3.15, 1.63]]),
    ("risk", 0.02, "state", [[7.97, 1.00, 1.01], [7.68, 1.01, 1.00], [3.13, 2.11, 1.68]]),
    ("risk", 0.02, "classifier", [[6.49, 1.06, 1.71], [5.05, 1.08, 1.97], [3.36, 1.55, 1.11]]),
    ("risk", 0.05, "softmax", [[1.73, 0.50, 3.53], [1.96, 0.85, 2.73], [1.65, 3.15, 1.63]]),
    ("risk", 0.05, "state", [[5.22, 1.11, 1.64], [2.72, 2.01, 1.58], [2.00, 3.65, 1.68]]),
    ("risk", 0.05, "classifier", [[2.30, 1.25, 2.09], [3.08, 1.21, 1.98], [2.59, 2.37, 1.10]]),
];

/// Table D.1: F1 of "do not exit" of the two objectives of the classifier at the layers 1, 4 and 7.
pub(super) fn classifier_f1(dataset: PaperDataset, objective: &str) -> [f64; 3] {
    match (dataset, objective) {
        (PaperDataset::CnnDm, "independent") => [0.62, 0.49, 0.37],
        (PaperDataset::CnnDm, _) => [0.59, 0.35, 0.24],
        (PaperDataset::Wmt, "independent") => [0.51, 0.34, 0.24],
        (PaperDataset::Wmt, _) => [0.33, 0.18, 0.11],
        (PaperDataset::Squad, "independent") => [0.76, 0.26, 0.18],
        (PaperDataset::Squad, _) => [0.73, 0.16, 0.11],
    }
}
