//! How far each layer's K/V cache is filled, and filling what is missing.
//!
//! A token that left at layer j has no K/V in the layers above. Either its state after layer j stands in for
//! the states it never got: layer k > j projects that state with its own norm and weights (paper section
//! 3.3.1). Or layer k has a copy of the K/V of layer j. Or the layers run for it after all. All of it may
//! wait until a later token of the row runs layer k, which is when the K/V are read first: then those of all
//! tokens that left since are computed at once, with the results that computing them step by step would have
//! had. Layers that no token reaches again never get theirs.

use crate::backbone::{DecoderSession, Entry};
use crate::error::EngineError;
use crate::policy::Skipped;

/// Bookkeeping of one decoding.
pub(crate) struct Caches {
    num_rows: usize,
    skipped: Skipped,
    /// By layer, then row: K/V of the positions below this number exist.
    filled: Vec<usize>,
    /// Entries written by propagation or copied, by row.
    propagated: Vec<usize>,
    /// Entries of the call being made, kept for its allocation.
    missing: Vec<Entry>,
}

impl Caches {
    pub(crate) fn new(num_layers: usize, num_rows: usize, skipped: Skipped) -> Self {
        Self {
            num_rows,
            skipped,
            filled: vec![0; num_layers * num_rows],
            propagated: vec![0; num_rows],
            missing: Vec::new(),
        }
    }

    /// Entries written by propagation or copied for `row`.
    pub(crate) fn propagated(&self, row: usize) -> usize {
        self.propagated[row]
    }

    /// Writes the K/V of `layer` that the rows of `entries` lack below them, by one call of the engine if
    /// any.
    pub(crate) fn fill(
        &mut self,
        session: &mut dyn DecoderSession,
        layer: usize,
        entries: &[Entry],
    ) -> Result<(), EngineError> {
        self.missing.clear();
        // A row's first entry tells how far it has to be filled.
        for entries in entries.chunk_by(|a, b| a.row == b.row) {
            let Entry { row, position } = entries[0];
            let filled = &mut self.filled[(layer - 1) * self.num_rows + row];
            self.propagated[row] += position - *filled;
            self.missing.extend((*filled..position).map(|position| Entry { row, position }));
            *filled = position;
        }
        if self.missing.is_empty() {
            return Ok(());
        }
        match self.skipped {
            // The layer below has all that this one lacks, since no token runs a layer before those below it.
            Skipped::Copied => session.copy_keys_values(layer, &self.missing),
            Skipped::Propagated | Skipped::Deferred(_) => session.propagate(layer, &self.missing),
        }
    }

    /// The entries that `layer` has to run for when it runs for these, one of each row: those of their rows
    /// that have waited for it, and themselves.
    pub(crate) fn waiting_for(&self, layer: usize, entries: &[Entry]) -> Vec<Entry> {
        let of_row = |&entry: &Entry| {
            let first = self.filled[(layer - 1) * self.num_rows + entry.row];
            (first..=entry.position).map(move |position| Entry { position, ..entry })
        };
        entries.iter().flat_map(of_row).collect()
    }

    /// How many tokens before `entry` wait for `layer`.
    pub(crate) fn num_waiting(&self, layer: usize, entry: Entry) -> usize {
        entry.position - self.filled[(layer - 1) * self.num_rows + entry.row]
    }

    /// Whether the K/V of `layer` exist for a position of `row`.
    pub(crate) fn has(&self, layer: usize, row: usize, position: usize) -> bool {
        position < self.filled[(layer - 1) * self.num_rows + row]
    }

    /// `layer` ran for `entries` and wrote their K/V.
    pub(crate) fn ran(&mut self, layer: usize, entries: &[Entry]) {
        for entry in entries {
            self.filled[(layer - 1) * self.num_rows + entry.row] = entry.position + 1;
        }
    }

    /// `entry` counts as having left at `layer`: what the layers above wrote for it, and for what comes after
    /// it, is to be replaced.
    pub(crate) fn discard_above(&mut self, layer: usize, entry: Entry) {
        for filled in self.filled.chunks_exact_mut(self.num_rows).skip(layer) {
            // Layers that nobody ran lack earlier positions too.
            filled[entry.row] = filled[entry.row].min(entry.position);
        }
    }
}
