//! Longest common subsequences, with 64 cells of the textbook's table at a time.

use crate::positions::Positions;

/// Length of the longest common subsequence; the numbers in `b` are below `vocabulary`.
///
/// It takes memory linear in the length of the sequences.
pub(super) fn length(a: &[u32], b: &[u32], vocabulary: usize) -> usize {
    let mut rows = Rows::new(b, vocabulary);
    a.iter().for_each(|&element| rows.advance(element));
    length_before(&rows.row, b.len())
}

/// Sets `marks[i]` for each element of `a` in the longest common subsequence with `b` that rouge-score finds.
///
/// If there are several, it is the one that rouge-score's `_backtrack_norec` reads out of the table: from the
/// end, equal elements belong to it, and of two ways of the same length it leaves out the element of `a`.
/// Only every `sqrt(a.len())`-th row of the table is kept and the rows between are computed again, so that
/// memory grows with the power 1.5 of the length, divided by 64.
pub(super) fn mark(a: &[u32], b: &[u32], vocabulary: usize, marks: &mut [bool]) {
    let block = a.len().isqrt().max(1);
    let mut rows = Rows::new(b, vocabulary);
    let mut kept = Vec::with_capacity(a.len() / block + 1);
    for (i, &element) in a.iter().enumerate() {
        if i % block == 0 {
            kept.push(rows.row.clone());
        }
        rows.advance(element);
    }
    let mut j = b.len();
    for (number, start) in kept.into_iter().enumerate().rev() {
        // `table[i]` is the row before the element `first + i`.
        let first = number * block;
        let elements = &a[first..a.len().min(first + block)];
        rows.row = start;
        let mut table = Vec::with_capacity(block + 1);
        for &element in elements {
            table.push(rows.row.clone());
            rows.advance(element);
        }
        table.push(rows.row.clone());
        for i in (0..elements.len()).rev() {
            while j > 0
                && elements[i] != b[j - 1]
                && length_before(&table[i + 1], j - 1) > length_before(&table[i], j)
            {
                j -= 1;
            }
            if j > 0 && elements[i] == b[j - 1] {
                marks[first + i] = true;
                j -= 1;
            }
        }
    }
}

/// The rows of the table one after the other (Hyyrö 2004, "Bit-parallel LCS-length computation revisited").
struct Rows {
    /// Bit j is 0 where the length of the common subsequence with `b[..=j]` exceeds the one with `b[..j]`.
    row: Vec<u64>,
    positions: Positions,
    /// Room for the positions of the current element.
    mask: Vec<u64>,
}

impl Rows {
    fn new(b: &[u32], vocabulary: usize) -> Self {
        let words = b.len().div_ceil(64);
        let positions = Positions::new(b, vocabulary);
        Self { row: vec![u64::MAX; words], positions, mask: vec![0; words] }
    }

    fn advance(&mut self, element: u32) {
        self.positions.set(element, &mut self.mask);
        let mut carry = false;
        for (word, mask) in self.row.iter_mut().zip(&mut self.mask) {
            let (sum, overflow) = word.overflowing_add(*word & *mask);
            let (sum, carry_overflow) = sum.overflowing_add(u64::from(carry));
            carry = overflow || carry_overflow;
            *word = sum | (*word & !*mask);
            *mask = 0;
        }
    }
}

/// Length of the common subsequence with `b[..end]`.
///
/// Bits beyond the end of `b` never match, but a carry may run into them.
fn length_before(row: &[u64], end: usize) -> usize {
    let whole: usize = row[..end / 64].iter().map(|word| word.count_zeros() as usize).sum();
    let rest = row.get(end / 64).map_or(0, |word| (!word & ((1 << (end % 64)) - 1)).count_ones() as usize);
    whole + rest
}
