//! The edit distance within a beam around the diagonal.
//!
//! It is `BeamEditDistance` in sacreBLEU's `metrics/lib_ter.py`.

use std::ops::Range;

/// Number of cells on either side of the diagonal.
const BEAM_WIDTH: usize = 25;

/// Cost of a cell outside the beam.
const UNREACHED: u32 = u32::MAX / 2;

/// A step by which the hypothesis becomes the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Keep,
    Substitute,
    /// A word of the reference is inserted.
    Insert,
    /// A word of the hypothesis is deleted.
    Delete,
}

/// The table of distances between the beginnings of a hypothesis and of a reference.
///
/// Only the beam is kept, so memory is linear in the length of the texts.
pub(super) struct EditDistance<'a> {
    hypothesis: Vec<u32>,
    reference: &'a [u32],
    /// The rows of the table, one for each beginning of the hypothesis.
    rows: Vec<Row>,
    /// Two rows to compute in.
    scratch: [Row; 2],
}

/// Costs from the column `first` on; other columns cost [`UNREACHED`].
#[derive(Clone, Default)]
struct Row {
    first: usize,
    costs: Vec<u32>,
}

impl Row {
    fn cost(&self, column: usize) -> u32 {
        let index = column.checked_sub(self.first);
        index.and_then(|index| self.costs.get(index)).copied().unwrap_or(UNREACHED)
    }
}

impl<'a> EditDistance<'a> {
    pub(super) fn new(hypothesis: &[u32], reference: &'a [u32]) -> Self {
        let mut rows = vec![Row { first: 0, costs: (0..=reference.len() as u32).collect() }];
        for i in 1..=hypothesis.len() {
            let mut row = Row::default();
            fill(
                &mut row,
                &rows[i - 1],
                hypothesis[i - 1],
                reference,
                beam(i, hypothesis.len(), reference.len()),
            );
            rows.push(row);
        }
        Self { hypothesis: hypothesis.to_vec(), reference, rows, scratch: Default::default() }
    }

    pub(super) fn cost(&self) -> usize {
        self.rows[self.hypothesis.len()].cost(self.reference.len()) as usize
    }

    /// Computes the cost for another hypothesis of the same length.
    ///
    /// It differs from the word `first_changed` on.
    pub(super) fn cost_of_changed(&mut self, hypothesis: &[u32], first_changed: usize) -> usize {
        let [previous, current] = &mut self.scratch;
        previous.clone_from(&self.rows[first_changed]);
        for i in first_changed + 1..=hypothesis.len() {
            let columns = beam(i, hypothesis.len(), self.reference.len());
            fill(current, previous, hypothesis[i - 1], self.reference, columns);
            std::mem::swap(previous, current);
        }
        previous.cost(self.reference.len()) as usize
    }

    /// Lists the operations from the start to the end.
    ///
    /// If there are several ways it is the one that sacreBLEU takes: backwards, keeping or substituting is
    /// preferred to deleting, and that to inserting.
    pub(super) fn operations(&self) -> Vec<Operation> {
        let (mut i, mut j) = (self.hypothesis.len(), self.reference.len());
        let mut operations = Vec::with_capacity(i + j);
        while i > 0 || j > 0 {
            let cost = self.rows[i].cost(j);
            let is_same = i > 0 && j > 0 && self.hypothesis[i - 1] == self.reference[j - 1];
            let operation = if i == 0 {
                Operation::Insert
            } else if j == 0 {
                Operation::Delete
            } else if self.rows[i - 1].cost(j - 1) + u32::from(!is_same) == cost {
                if is_same { Operation::Keep } else { Operation::Substitute }
            } else if self.rows[i - 1].cost(j) + 1 == cost {
                Operation::Delete
            } else {
                Operation::Insert
            };
            i -= usize::from(operation != Operation::Insert);
            j -= usize::from(operation != Operation::Delete);
            operations.push(operation);
        }
        operations.reverse();
        operations
    }
}

/// The columns of row `i`: around the diagonal, and wide enough for rows to overlap if one text is much
/// longer.
fn beam(i: usize, hypothesis: usize, reference: usize) -> Range<usize> {
    let ratio = reference as f64 / hypothesis as f64;
    let width = if (BEAM_WIDTH as f64) < ratio / 2.0 {
        (ratio / 2.0 + BEAM_WIDTH as f64).ceil() as usize
    } else {
        BEAM_WIDTH
    };
    let diagonal = (i as f64 * ratio).floor() as usize;
    let end = if i == hypothesis { reference + 1 } else { (reference + 1).min(diagonal + width) };
    diagonal.saturating_sub(width)..end
}

fn fill(row: &mut Row, above: &Row, word: u32, reference: &[u32], columns: Range<usize>) {
    row.first = columns.start;
    row.costs.clear();
    let mut left = UNREACHED;
    let mut diagonal = columns.start.checked_sub(1).map_or(UNREACHED, |column| above.cost(column));
    for column in columns {
        let straight = above.cost(column);
        let mut cost = straight + 1;
        if column > 0 {
            let substituted = diagonal + u32::from(word != reference[column - 1]);
            cost = substituted.min(cost).min(left + 1);
        }
        row.costs.push(cost);
        (left, diagonal) = (cost, straight);
    }
}
