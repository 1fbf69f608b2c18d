//! What is asked of the logits of one state, after the product with the whole vocabulary.

use calm_core::{Shortlist, Token, Top2, best_tokens};

use super::sums::{best_of_logits, least_of_best, sum_of_all, tokens_above, two_largest};
use super::{Head, Room};
use crate::elementwise::exp;
use crate::panels::PANEL;
use crate::simd::Simd;
use crate::team::Scratch;

/// One state that was prepared, and screened where its logits are read.
#[derive(Clone, Copy)]
pub(super) struct RowOf<'a> {
    pub(super) head: &'a Head,
    pub(super) room: &'a Room,
    pub(super) row: usize,
}

/// The two best tokens of a row.
#[derive(Clone, Copy, Default)]
pub(super) struct Leaders {
    pub(super) tokens: [usize; 2],
    /// Exact logits of the two.
    pub(super) logits: [f32; 2],
    /// 1 - e^(second - best), what the margin would be without other tokens.
    pub(super) lead: f32,
}

impl RowOf<'_> {
    /// The 8-bit logits.
    #[inline(always)]
    fn logits(&self) -> &[f32] {
        let padded = self.head.panels() * PANEL;
        &self.room.logits[self.row * padded..][..padded]
    }

    /// The exact logit of a token.
    #[inline(always)]
    fn exact<S: Simd>(&self, token: usize) -> f32 {
        self.head.token_logit::<S>(self.room, self.row, token)
    }

    /// Finds the tokens whose exact logit may be `least` or more, in ascending order.
    #[inline(always)]
    fn tokens_above(&self, least: f32, tokens: &mut Vec<usize>) {
        let known = &self.room.rows[self.row];
        tokens_above(self.logits(), &self.head.bounds, known, least, tokens);
    }

    /// The two best of tokens that ascend, by their exact logits. The lower token wins a tie.
    #[inline(always)]
    fn two_best<S: Simd>(&self, tokens: &[usize]) -> [(usize, f32); 2] {
        let mut best = [(0, f32::NEG_INFINITY); 2];
        for &token in tokens {
            let logit = self.exact::<S>(token);
            if logit > best[0].1 {
                best = [(token, logit), best[0]];
            } else if logit > best[1].1 {
                best[1] = (token, logit);
            }
        }
        best
    }
}

/// Finds the best token.
#[inline(always)]
pub(super) fn best_of<S: Simd>(row: RowOf<'_>, scratch: &mut Scratch) -> Token {
    let tokens = &mut scratch.tokens;
    row.tokens_above(row.room.rows[row.row].least[0], tokens);
    match tokens[..] {
        [token] => token as Token,
        _ => row.two_best::<S>(tokens)[0].0 as Token,
    }
}

/// Finds the best token and its lead.
#[inline(always)]
pub(super) fn leaders_of<S: Simd>(row: RowOf<'_>, scratch: &mut Scratch) -> Leaders {
    let tokens = &mut scratch.tokens;
    // All tokens but one are as good as the second best or worse.
    row.tokens_above(row.room.rows[row.row].least[1], tokens);
    let [(token, best), (other, second)] = row.two_best::<S>(tokens);
    let lead = (1.0 - f64::from(second - best).exp()) as f32;
    Leaders { tokens: [token, other], logits: [best, second], lead }
}

/// Finds the best token, and the margin that the 8-bit logits give.
#[inline(always)]
pub(super) fn estimate_of<S: Simd>(row: RowOf<'_>, scratch: &mut Scratch) -> Top2 {
    let tokens = &mut scratch.tokens;
    row.tokens_above(row.room.rows[row.row].least[0], tokens);
    let logits = row.logits();
    let largest = two_largest(logits);
    let total = sum_of_all(logits, largest[0]);
    // Where several tokens can be the best, the leaders have been computed: they replace what 8 bits say.
    let [(token, best), (other, second)] = match tokens[..] {
        [token] => [(token, logits[token]), (token, largest[1])],
        _ => row.two_best::<S>(tokens),
    };
    let power = |logit: f32| exp(logit - largest[0]);
    let mut total = total - power(logits[token]) + power(best);
    if other != token {
        total += power(second) - power(logits[other]);
    }
    let margin = (power(best) - power(second)) / total.max(f32::MIN_POSITIVE);
    Top2 { token: token as Token, margin: margin.clamp(0.0, 1.0) }
}

/// Finds what [`estimate_of`] says, and about the `count` best tokens, the best one among them.
#[inline(always)]
pub(super) fn shortlist_of<S: Simd>(row: RowOf<'_>, count: usize, scratch: &mut Scratch) -> Shortlist {
    let top2 = estimate_of::<S>(row, scratch);
    let Scratch { tokens, scores, .. } = scratch;
    best_of_logits(row.logits(), count, tokens, scores);
    let mut tokens: Vec<Token> = tokens.iter().map(|&token| token as Token).collect();
    // The exact head may prefer a token that 8 bits put behind others.
    if let Err(at) = tokens.binary_search(&top2.token) {
        let logit = |token: Token| row.logits()[token as usize];
        let worst = (0..tokens.len()).min_by(|&a, &b| logit(tokens[a]).total_cmp(&logit(tokens[b])));
        tokens.insert(at, top2.token);
        let worst = worst.map_or(0, |worst| worst + usize::from(worst >= at));
        tokens.remove(worst);
    }
    Shortlist { top2, tokens }
}

/// Finds the `count` best tokens.
#[inline(always)]
pub(super) fn best_tokens_of<S: Simd>(row: RowOf<'_>, count: usize, scratch: &mut Scratch) -> Vec<Token> {
    let Scratch { tokens, scores, .. } = scratch;
    let known = &row.room.rows[row.row];
    let least = least_of_best(row.logits(), &row.head.bounds, known, count, scores);
    row.tokens_above(least, tokens);
    scores.clear();
    for &token in tokens.iter() {
        scores.push(row.exact::<S>(token));
    }
    best_tokens(scores, count).into_iter().map(|index| tokens[index as usize] as Token).collect()
}

/// Finds the best of some tokens, and its margin among them.
#[inline(always)]
pub(super) fn among_of<S: Simd>(row: RowOf<'_>, candidates: &[Token], scratch: &mut Scratch) -> Top2 {
    let logits = &mut scratch.scores;
    logits.clear();
    for &token in candidates {
        logits.push(row.exact::<S>(token as usize));
    }
    let Top2 { token, margin } = Top2::from_logits(logits);
    Top2 { token: candidates[token as usize], margin }
}
