//! Propagation: how far each layer's K/V cache is filled, and filling what is missing.
//!
//! A token that left at layer j has no K/V in the layers above. Its state after layer j stands in for the
//! states it never got, so layer k > j projects that state with its own norm and weights (paper section
//! 3.3.1). This may wait until a later token of the row runs layer k, which is when the K/V are read first:
//! then those of all tokens that left since are computed at once, with the results that computing them step
//! by step would have had. Layers that no token reaches again never get theirs.

use crate::backbone::{CacheEntry, DecoderSession};

/// Bookkeeping of one decoding.
pub(crate) struct Propagator {
    num_rows: usize,
    /// By layer, then row: K/V of the positions below this number exist.
    filled: Vec<usize>,
    /// Entries written by propagation, by row.
    written: Vec<usize>,
    /// Entries of the call being made, kept for its allocation.
    missing: Vec<CacheEntry>,
}

impl Propagator {
    /// Nothing is filled yet.
    pub(crate) fn new(num_layers: usize, num_rows: usize) -> Self {
        Self {
            num_rows,
            filled: vec![0; num_layers * num_rows],
            written: vec![0; num_rows],
            missing: Vec::new(),
        }
    }

    /// Entries written by propagation for each row.
    pub(crate) fn written(&self) -> &[usize] {
        &self.written
    }

    /// Writes the K/V of `layer` that `rows` lack at positions below `end`, by one call of the engine if any.
    pub(crate) fn fill<S: DecoderSession>(
        &mut self,
        session: &mut S,
        layer: usize,
        rows: &[usize],
        end: usize,
    ) -> Result<(), S::Error> {
        self.missing.clear();
        for &row in rows {
            let filled = &mut self.filled[(layer - 1) * self.num_rows + row];
            self.written[row] += end - *filled;
            self.missing.extend((*filled..end).map(|position| CacheEntry { row, position }));
            *filled = end;
        }
        if self.missing.is_empty() { Ok(()) } else { session.propagate(layer, &self.missing) }
    }

    /// `layer` ran for `rows` and wrote their K/V at `position`.
    pub(crate) fn ran(&mut self, layer: usize, rows: &[usize], position: usize) {
        for &row in rows {
            self.filled[(layer - 1) * self.num_rows + row] = position + 1;
        }
    }

    /// `rows` count as having left at `layer`: what the layers above wrote at `position` is to be replaced.
    pub(crate) fn discard_above(&mut self, layer: usize, rows: &[usize], position: usize) {
        for filled in self.filled.chunks_exact_mut(self.num_rows).skip(layer) {
            for &row in rows {
                filled[row] = position;
            }
        }
    }
}
