use std::collections::BTreeSet;
use std::path::Path;

use super::error::LossFileError;
use super::rows::{Columns, ExampleId, Source, THRESHOLD, for_each_batch};

/// The thresholds of a file, and the number of its rows.
#[derive(Debug)]
pub(super) struct Grid {
    /// The thresholds, descending.
    pub(super) thresholds: Vec<f64>,
    pub(super) rows: u64,
}

impl Grid {
    /// Reads only the column of thresholds.
    ///
    /// Fails at the first one that is not in `[0, 1]`, and if there are no rows.
    pub(super) fn read<I: ExampleId>(source: &dyn Source<I>, path: &Path) -> Result<Self, LossFileError> {
        // The bits of non-negative doubles have the same order as the doubles themselves.
        let mut found = BTreeSet::new();
        let mut rows = 0;
        for_each_batch(source, Columns::Thresholds, |batch| {
            let mut previous = f64::NAN;
            for (index, &threshold) in batch.thresholds.iter().enumerate() {
                if threshold == previous {
                    continue;
                }
                if !(0.0..=1.0).contains(&threshold) {
                    return Err(LossFileError::Cell {
                        path: path.to_owned(),
                        place: batch.places.of(index),
                        column: THRESHOLD,
                        message: format!("{threshold} is not in [0, 1]"),
                    });
                }
                previous = threshold;
                // Adding 0 turns -0 into 0.
                found.insert((threshold + 0.0).to_bits());
            }
            rows += batch.thresholds.len() as u64;
            Ok(())
        })?;
        if rows == 0 {
            return Err(LossFileError::NoRows { path: path.to_owned() });
        }
        Ok(Self { thresholds: found.into_iter().rev().map(f64::from_bits).collect(), rows })
    }

    /// The number of examples, if every one has a row at every threshold; `None` if that is impossible.
    pub(super) fn examples(&self) -> Option<usize> {
        let thresholds = self.thresholds.len() as u64;
        self.rows.is_multiple_of(thresholds).then(|| usize::try_from(self.rows / thresholds).ok()).flatten()
    }

    /// Finds the index of a threshold. `guess` is tried before all others.
    pub(super) fn index_of(&self, threshold: f64, guess: usize) -> Option<usize> {
        if self.thresholds.get(guess) == Some(&threshold) {
            return Some(guess);
        }
        // `total_cmp` alone would distinguish -0 from 0.
        self.thresholds.binary_search_by(|other| (threshold + 0.0).total_cmp(other)).ok()
    }
}
