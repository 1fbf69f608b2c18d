//! The relative position bias as tensors.

use calm_checkpoint::{Direction, T5Config, bucket};
use tch::{Device, Kind, Tensor};

/// Bias of every (query, key) pair: `table` [buckets, heads] -> [1, heads, queries, keys], with queries = keys = `length`.
pub(super) fn square_bias(table: &Tensor, config: &T5Config, direction: Direction, length: i64) -> Tensor {
    let buckets: Vec<i64> =
        (1 - length..length).map(|relative| bucket(config, direction, relative)).collect();
    let index = Tensor::from_slice(&buckets).to_device(table.device());
    // Keys of a query at position q are the window of distances that starts with -q, so that the table is read 2 length - 1
    // times instead of length^2: [2 length - 1, heads] -> [heads, windows, length] -> [1, heads, length, length]
    table.index_select(0, &index).transpose(0, 1).unfold(1, length, 1).flip([1]).unsqueeze(0)
}

/// Bias of the decoder's keys by distance, farthest first: [heads, max_tokens]. The keys of a query at position t
/// (positions 0..=t) are its last t + 1 columns.
pub(super) fn causal_bias_row(table: &Tensor, config: &T5Config, max_tokens: i64) -> Tensor {
    let buckets: Vec<i64> =
        (0..max_tokens).rev().map(|distance| bucket(config, Direction::Causal, -distance)).collect();
    let index = Tensor::from_slice(&buckets).to_device(table.device());
    table.index_select(0, &index).transpose(0, 1).contiguous()
}

/// 0 on and below the diagonal, minus infinity above: [1, 1, length, length].
pub(super) fn causal_mask(length: i64, options: (Kind, Device)) -> Tensor {
    Tensor::full([length, length], f64::NEG_INFINITY, options).triu(1).view([1, 1, length, length])
}
