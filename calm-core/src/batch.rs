//! Batches of sources of like length, which waste little on padding.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::Token;

/// Indices into `lengths` in batches of at most `batch_size` (0 counts as 1): longest first, so that a batch
/// that does not fit into memory is the first one, and equally long ones in input order.
pub fn batch_by_length(lengths: &[usize], batch_size: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
    order.chunks(batch_size.max(1)).map(<[usize]>::to_vec).collect()
}

/// Results of such batches, given in the order of the batches, in input order.
pub fn in_input_order<T>(batches: &[Vec<usize>], results: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut indexed: Vec<(usize, T)> = batches.iter().flatten().copied().zip(results).collect();
    indexed.sort_by_key(|&(index, _)| index);
    indexed.into_iter().map(|(_, result)| result).collect()
}

/// Cuts a source that is longer than `limit` tokens, which is at least 1. Its last token stays, since it ends the source.
pub fn cut_source(tokens: &mut Vec<Token>, limit: usize) {
    if tokens.len() > limit {
        tokens.drain(limit - 1..tokens.len() - 1);
    }
}

/// Threads that the machine runs side by side, at least one.
pub fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Calls `f` on every item, side by side on all backbones, and returns the results in the order of the items.
pub fn map_batches<B, T, R>(backbones: &mut [B], items: &[T], f: impl Fn(&B, &T) -> R + Sync) -> Vec<R>
where
    B: Send,
    T: Sync,
    R: Send,
{
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for backbone in backbones.iter_mut().take(items.len()) {
            let (next, results, f) = (&next, &results, &f);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    let result = f(backbone, item);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
