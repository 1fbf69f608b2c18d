//! The relative position bias as tensors.

use calm_checkpoint::{Direction, T5Config, bucket};
use tch::Tensor;

use crate::decoder::{CausalBias, aligned};
use crate::device::upload;

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

/// Biases of a decoder's keys for positions below `max_tokens`, from `table` [buckets, heads].
pub(super) fn causal_bias(table: &Tensor, config: &T5Config, max_tokens: i64) -> CausalBias {
    let buckets: Vec<i64> =
        (0..max_tokens).rev().map(|distance| bucket(config, Direction::Causal, -distance)).collect();
    CausalBias::new(&table.index_select(0, &upload(&buckets, table.device())).transpose(0, 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::ALIGNMENT;
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
            let bias = causal_bias(&table, &config, max_tokens);
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
