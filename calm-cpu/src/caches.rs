//! Keys and values of a decoding, layer by layer.

use crate::attention::{Heads, KeysValues};

/// Keys and values of one layer, by row. There may be more rows than those of the batch.
#[derive(Default)]
pub(crate) struct LayerCaches {
    /// Keys and values that self-attention reads. A token finds those of all positions up to its own, which
    /// have been written since the decoding began, or are those of a prompt.
    pub(crate) own: Vec<KeysValues>,
    /// Keys and values of the source that an encoder has read, empty until the row's first token reaches the
    /// layer.
    pub(crate) source: Vec<KeysValues>,
}

impl LayerCaches {
    /// Makes sure that there are caches for as many rows. Those of sources are empty.
    pub(crate) fn begin(&mut self, rows: usize, own: Heads, source: Option<Heads>) {
        if self.own.len() < rows {
            self.own.resize(rows, KeysValues::new(own));
        }
        if let Some(heads) = source
            && self.source.len() < rows
        {
            self.source.resize(rows, KeysValues::new(heads));
        }
        self.source.iter_mut().for_each(|cache| cache.clear(0));
    }

    /// Lets each row have the keys and values of self-attention that row `from[row]` had. Those of the source
    /// are its own.
    pub(crate) fn copy_rows(&mut self, from: &[usize]) {
        let mut uses = vec![0; from.len()];
        from.iter().for_each(|&row| uses[row] += 1);
        let mut before: Vec<Option<KeysValues>> = self.own.drain(..from.len()).map(Some).collect();
        let copies = from.iter().filter_map(|&row| {
            uses[row] -= 1;
            // The last use needs no copy.
            if uses[row] == 0 { before[row].take() } else { before[row].clone() }
        });
        self.own.splice(..0, copies);
    }
}
