//! The relative position bias as tensors.

use calm_checkpoint::{Direction, T5Config, bucket};
use tch::Tensor;

use crate::device::upload;

/// Number of elements of which the start of a bias's row is a multiple.
///
/// They are 16 bytes in 16 bits, which the fused attention on CUDA reads at once.
pub(super) const ALIGNMENT: i64 = 8;

/// Returns the length in memory of a row that holds a bias of this many keys.
pub(super) fn aligned(keys: i64) -> i64 {
    (keys + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
}

/// Computes the bias of every (query, key) pair, with `length` queries and at least as many keys.
///
/// `table` [buckets, heads] becomes [1, heads, length, aligned length]. Keys that a decoder may not see have
/// minus infinity.
pub(super) fn square_bias(table: &Tensor, config: &T5Config, direction: Direction, length: i64) -> Tensor {
    let (buckets, heads) = table.size2().expect("two dimensions");
    let keys = aligned(length);
    let is_causal = direction == Direction::Causal;
    let index: Vec<i64> = (1 - length..keys)
        .map(|relative| match relative > 0 && is_causal {
            true => buckets,
            false => bucket(config, direction, relative),
        })
        .collect();
    let table = if is_causal {
        let unseen = Tensor::full([1, heads], f64::NEG_INFINITY, (table.kind(), table.device()));
        Tensor::cat(&[table, &unseen], 0)
    } else {
        table.shallow_clone()
    };
    // The keys of a query at position q are the window of distances that starts with -q, so that the table is
    // read length + keys times instead of length * keys: [length + keys - 1, heads] -> [heads, windows, keys]
    // -> [1, heads, length, keys]
    let distances = table.index_select(0, &upload(&index, table.device())).transpose(0, 1).contiguous();
    // Flipping overlapping windows would leave the keys apart in memory.
    distances.unfold(1, keys, 1).flip([1]).contiguous().unsqueeze(0)
}

/// Biases of a decoder's keys, from which those of queries at any positions are cut.
pub(super) struct CausalBias {
    /// By distance, farthest first, then minus infinity for the keys behind a query:
    /// [heads, max_tokens + aligned max_tokens]
    by_distance: Tensor,
    max_tokens: i64,
}

impl CausalBias {
    /// For positions below `max_tokens`, from `table` [buckets, heads].
    pub(super) fn new(table: &Tensor, config: &T5Config, max_tokens: i64) -> Self {
        let buckets: Vec<i64> =
            (0..max_tokens).rev().map(|distance| bucket(config, Direction::Causal, -distance)).collect();
        let seen = table.index_select(0, &upload(&buckets, table.device())).transpose(0, 1);
        let by_distance = seen.pad([0, aligned(max_tokens)], "constant", f64::NEG_INFINITY);
        CausalBias { by_distance: by_distance.contiguous(), max_tokens }
    }

    /// Where the keys, from position 0 on, of a query at `position` begin.
    pub(super) fn start(&self, position: i64) -> i64 {
        self.max_tokens - 1 - position
    }

    /// Bias of queries that are all at `position`, for the keys up to their own: [1, heads, 1, position + 1],
    /// in aligned rows.
    pub(super) fn at(&self, position: i64) -> Tensor {
        let keys = position + 1;
        let bias = self.by_distance.narrow_copy(1, self.start(position), aligned(keys));
        bias.view([1, -1, 1, aligned(keys)]).narrow(3, 0, keys)
    }

    /// Bias of queries by their [`start`](Self::start), as many for each row, and of the keys from position 0
    /// on: [rows * queries] -> [rows, heads, queries, keys], in aligned rows.
    pub(super) fn at_starts(&self, starts: &Tensor, queries: i64, keys: i64) -> Tensor {
        // [heads, starts, aligned keys] -> [heads, rows * queries, aligned keys]
        let bias = self.by_distance.unfold(1, aligned(keys), 1).index_select(1, starts);
        let heads = bias.size()[0];
        bias.view([heads, -1, queries, aligned(keys)]).transpose(0, 1).narrow(3, 0, keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn config() -> T5Config {
        T5Config { num_heads: 3, ..T5Config::published("t5-v1_1-small").expect("a published shape") }
    }

    #[test]
    fn biases_are_aligned_and_those_of_their_distances() {
        let config = config();
        let table = Tensor::rand([32, 3], (Kind::Float, Device::Cpu));
        for direction in [Direction::Bidirectional, Direction::Causal] {
            for length in [1, 7, 8, 9, 40, 300] {
                let padded = square_bias(&table, &config, direction, length);
                let mask = Tensor::zeros([4, 1, 1, aligned(length)], (Kind::Float, Device::Cpu));
                for bias in [padded.shallow_clone(), &padded + mask] {
                    let (sizes, strides) = (bias.size(), bias.stride());
                    assert_eq!(strides[3], 1, "{direction:?} {length}");
                    let is_aligned = |dim: usize| sizes[dim] == 1 || strides[dim] % ALIGNMENT == 0;
                    assert!((0..3).all(is_aligned), "{direction:?} {length}: {strides:?}");
                }
                let bias = padded.narrow(-1, 0, length);
                assert_eq!(bias.size(), [1, 3, length, length]);
                for (query, key) in [(0, 0), (length - 1, 0), (0, length - 1), (length / 2, length / 3)] {
                    let seen = direction == Direction::Bidirectional || key <= query;
                    for head in 0..3 {
                        let found = bias.double_value(&[0, head, query, key]);
                        let expected = match seen {
                            true => table.double_value(&[bucket(&config, direction, key - query), head]),
                            false => f64::NEG_INFINITY,
                        };
                        assert_eq!(found, expected, "{direction:?} {length}: query {query}, key {key}");
                    }
                }
            }
        }
    }

    /// What a query sees depends on its position alone, whether it comes by itself or among others.
    #[test]
    fn biases_of_queries_are_rows_of_the_square_one() {
        let config = config();
        let table = Tensor::rand([32, 3], (Kind::Float, Device::Cpu));
        for max_tokens in [1, 7, 8, 60] {
            let square = square_bias(&table, &config, Direction::Causal, max_tokens);
            let bias = CausalBias::new(&table, &config, max_tokens);
            let is_aligned = |bias: &Tensor| {
                let strides = bias.stride();
                strides[3] == 1 && strides[..3].iter().all(|stride| stride % ALIGNMENT == 0)
            };
            for position in 0..max_tokens {
                let found = bias.at(position);
                assert_eq!(found, square.narrow(2, position, 1).narrow(3, 0, position + 1));
                assert!(is_aligned(&found), "{max_tokens} {position}: {:?}", found.stride());
            }
            // Two rows of queries, the second one in reverse.
            let starts: Vec<i64> =
                (0..max_tokens).chain((0..max_tokens).rev()).map(|position| bias.start(position)).collect();
            let found = bias.at_starts(&Tensor::from_slice(&starts), max_tokens, max_tokens);
            let expected = square.narrow(3, 0, max_tokens);
            assert_eq!(found.narrow(0, 0, 1), expected);
            assert_eq!(found.narrow(0, 1, 1), expected.flip([2]));
            assert!(is_aligned(&found), "{max_tokens}: {:?}", found.stride());
        }
    }
}
