//! What is added to the scores of attention: a bias by distance, or nothing but a mask.

use tch::{Device, Kind, Tensor};

/// Number of elements of which the start of a bias's row is a multiple.
///
/// They are 16 bytes in 16 bits, which the fused attention on CUDA reads at once.
pub(crate) const ALIGNMENT: i64 = 8;

/// Returns the length in memory of a row that holds a bias of this many keys.
pub(crate) fn aligned(keys: i64) -> i64 {
    (keys + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
}

/// Biases of a decoder's keys, from which those of queries at any positions are cut.
pub(crate) struct CausalBias {
    /// By distance, farthest first, then minus infinity for the keys behind a query:
    /// [heads, max_tokens + aligned max_tokens]
    by_distance: Tensor,
    max_tokens: i64,
}

impl CausalBias {
    /// From the biases of all distances, farthest first: [heads, positions].
    pub(crate) fn new(seen: &Tensor) -> Self {
        let max_tokens = seen.size()[1];
        let by_distance = seen.pad([0, aligned(max_tokens)], "constant", f64::NEG_INFINITY);
        CausalBias { by_distance: by_distance.contiguous(), max_tokens }
    }

    /// No bias, but the mask that hides the keys behind a query: for positions below `positions`.
    pub(crate) fn mask(positions: i64, options: (Kind, Device)) -> Self {
        Self::new(&Tensor::zeros([1, positions], options))
    }

    /// Where the keys, from position 0 on, of a query at `position` begin.
    pub(crate) fn start(&self, position: i64) -> i64 {
        self.max_tokens - 1 - position
    }

    /// Bias of queries that are all at `position`, for the keys up to their own: [1, heads, 1, position + 1],
    /// in aligned rows. A mask is zeros here; without one libtorch's kernel for CPUs would take scores that
    /// are no numbers for keys that nobody may see, and give zeros.
    pub(crate) fn at(&self, position: i64) -> Tensor {
        let keys = position + 1;
        let bias = self.by_distance.narrow_copy(1, self.start(position), aligned(keys));
        bias.view([1, -1, 1, aligned(keys)]).narrow(3, 0, keys)
    }

    /// Bias of queries by their [`start`](Self::start), as many for each row, and of the keys from position 0
    /// on: [rows * queries] -> [rows, heads, queries, keys], in aligned rows.
    pub(crate) fn at_starts(&self, starts: &Tensor, queries: i64, keys: i64) -> Tensor {
        // [heads, starts, aligned keys] -> [heads, rows * queries, aligned keys]
        let bias = self.by_distance.unfold(1, aligned(keys), 1).index_select(1, starts);
        let heads = bias.size()[0];
        bias.view([heads, -1, queries, aligned(keys)]).transpose(0, 1).narrow(3, 0, keys)
    }
}
