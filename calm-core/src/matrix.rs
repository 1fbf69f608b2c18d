//! What crosses the border between engines and measures: matrices of plain numbers, and the best of some
//! logits.

use crate::backbone::Token;

/// A row-major matrix.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Matrix {
    /// Rows one after the other: `[num_rows, columns]`.
    pub data: Vec<f32>,
    /// Length of a row.
    pub columns: usize,
}

impl Matrix {
    /// Row `index`. Panics when there is no such row, as a slice does.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.columns..(index + 1) * self.columns]
    }

    /// Number of rows; 0 when there are no columns.
    pub fn num_rows(&self) -> usize {
        self.data.len().checked_div(self.columns).unwrap_or(0)
    }

    /// The rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        (0..self.num_rows()).map(|index| self.row(index))
    }
}

/// The best token of a row of logits and how far it is ahead.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Top2 {
    /// The token with the largest logit, the lowest such token at a tie.
    pub token: Token,
    /// Probability of the best token minus that of the second best, from 0 to 1.
    pub margin: f32,
}

impl Top2 {
    /// From one row of logits. Logits that are not numbers never win.
    pub fn from_logits(logits: &[f32]) -> Self {
        let (mut token, mut best, mut second) = (0, f32::NEG_INFINITY, f32::NEG_INFINITY);
        for (index, &logit) in logits.iter().enumerate() {
            if logit > best {
                (token, second, best) = (index, best, logit);
            } else if logit > second {
                second = logit;
            }
        }
        // Relative to the largest logit no term overflows, and the best one is exactly 1.
        let sum: f64 = logits.iter().map(|&logit| f64::from((logit - best).exp())).sum();
        let margin = (1.0 - f64::from(second - best).exp()) / sum;
        Self { token: token as Token, margin: margin as f32 }
    }

    /// From the logits of some tokens alone, in ascending order, at least one.
    pub fn among(candidates: &[Token], logit: impl FnMut(Token) -> f32) -> Self {
        let logits: Vec<f32> = candidates.iter().copied().map(logit).collect();
        let Self { token, margin } = Self::from_logits(&logits);
        Self { token: candidates[token as usize], margin }
    }
}

/// The best token of a row of logits with its margin, and those that come next.
#[derive(Debug, Clone, PartialEq)]
pub struct Shortlist {
    /// The best token.
    pub top2: Top2,
    /// About the best tokens, in ascending order, the best one among them.
    pub tokens: Vec<Token>,
}

/// The `count` best tokens of a row of logits, or all there are, in ascending order; of equals the lower
/// ones. `count` is at least one.
pub fn best_tokens(logits: &[f32], count: usize) -> Vec<Token> {
    let mut tokens: Vec<Token> = (0..logits.len() as Token).collect();
    if count < tokens.len() {
        tokens.select_nth_unstable_by(count, |a, b| {
            logits[*b as usize].total_cmp(&logits[*a as usize]).then_with(|| a.cmp(b))
        });
        tokens.truncate(count);
        tokens.sort_unstable();
    }
    tokens
}

/// Product of two vectors, in several sums, since a single one makes every addition wait for the one before.
/// All engines and measures add up in this order, so that they agree to the last bit.
#[inline(always)]
pub fn dot(left: &[f32], right: &[f32]) -> f64 {
    const SUMS: usize = 8;
    let product = |(&a, &b): (&f32, &f32)| f64::from(a) * f64::from(b);
    let (left, right) = (left.chunks_exact(SUMS), right.chunks_exact(SUMS));
    let rest: f64 = left.remainder().iter().zip(right.remainder()).map(product).sum();
    let mut sums = [0.0; SUMS];
    for (left, right) in left.zip(right) {
        for (sum, pair) in sums.iter_mut().zip(left.iter().zip(right)) {
            *sum += product(pair);
        }
    }
    sums.iter().sum::<f64>() + rest
}
