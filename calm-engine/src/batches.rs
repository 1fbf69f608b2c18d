//! Batches of sources of like length, which waste little on padding.

use calm_core::Token;

/// A division of sources into batches: the longest first, so that a batch that does not fit into memory is
/// the first one, and equally long ones in input order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batches(Vec<Vec<usize>>);

impl Batches {
    /// Divides sources into batches of at most `batch_size` (0 counts as 1).
    pub fn new(sources: &[Vec<Token>], batch_size: usize) -> Self {
        let mut order: Vec<usize> = (0..sources.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(sources[index].len()));
        Self(order.chunks(batch_size.max(1)).map(<[usize]>::to_vec).collect())
    }

    /// Number of batches.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no sources.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The places of each batch's sources among all.
    pub fn rows(&self) -> impl Iterator<Item = &[usize]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// The sources of each batch.
    pub fn of<'a>(&self, sources: &'a [Vec<Token>]) -> Vec<Vec<&'a [Token]>> {
        self.rows().map(|rows| rows.iter().map(|&row| sources[row].as_slice()).collect()).collect()
    }

    /// Results that come in the order of the batches, in the order of the sources.
    pub fn in_input_order<T>(&self, results: impl IntoIterator<Item = T>) -> Vec<T> {
        let mut indexed: Vec<(usize, T)> = self.rows().flatten().copied().zip(results).collect();
        indexed.sort_by_key(|&(index, _)| index);
        indexed.into_iter().map(|(_, result)| result).collect()
    }
}
