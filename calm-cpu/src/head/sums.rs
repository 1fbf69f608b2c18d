//! What is read off the logits of one state: tokens that can be the best, and sums of exponentials. Each is
//! done by one thread in one order, so that it is the same for any number of threads.

use super::screen::{Bounds, Row, insert};
use crate::elementwise::{exp, exp_roughly, larger, maximum, smaller, sum};
use crate::panels::PANEL;
use crate::simd::LANES;

/// Finds the tokens whose exact logit may be `least` or more, in ascending order.
#[inline(always)]
pub(super) fn tokens_above(logits: &[f32], bounds: &Bounds, row: &Row, least: f32, tokens: &mut Vec<usize>) {
    tokens.clear();
    for (panel, logits) in logits.as_chunks::<PANEL>().0.iter().enumerate() {
        // What fills up the last panel has no logit, whatever is asked for.
        let least = larger(least - bounds.of(panel, row), f32::MIN);
        add_tokens(panel, logits, least, tokens);
    }
}

/// Adds the tokens of a panel with logits of this size or more.
#[inline(always)]
fn add_tokens(panel: usize, logits: &[f32; PANEL], least: f32, tokens: &mut Vec<usize>) {
    if is_any(logits, least) {
        // One bit for each, which takes vectors a few instructions.
        let mut above = 0_u32;
        for (i, &logit) in logits.iter().enumerate() {
            above |= u32::from(logit >= least) << i;
        }
        while above != 0 {
            tokens.push(panel * PANEL + above.trailing_zeros() as usize);
            above &= above - 1;
        }
    }
}

/// Whether there is a number of this size or more.
#[inline(always)]
fn is_any(logits: &[f32; PANEL], least: f32) -> bool {
    let mut is_any = false;
    for i in 0..LANES {
        is_any |= larger(logits[i], logits[i + LANES]) >= least;
    }
    is_any
}

/// Finds the two largest logits.
#[inline(always)]
pub(super) fn two_largest(logits: &[f32]) -> [f32; 2] {
    let (mut best, mut second) = ([f32::NEG_INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    for logits in logits.as_chunks::<PANEL>().0 {
        for i in 0..LANES {
            let (a, b) = (logits[i], logits[i + LANES]);
            let (large, small) = (larger(a, b), smaller(a, b));
            second[i] = larger(larger(second[i], small), smaller(best[i], large));
            best[i] = larger(best[i], large);
        }
    }
    let mut largest = [f32::NEG_INFINITY; 2];
    for x in best.into_iter().chain(second) {
        insert(&mut largest, x);
    }
    largest
}

/// Finds a lower bound on the `count` largest exact logits, which is close to the least of them.
#[inline(always)]
pub(super) fn least_of_best(
    logits: &[f32],
    bounds: &Bounds,
    row: &Row,
    count: usize,
    lower: &mut Vec<f32>,
) -> f32 {
    let descending = |a: &f32, b: &f32| b.total_cmp(a);
    lower.clear();
    for (panel, logits) in logits.as_chunks::<PANEL>().0.iter().enumerate() {
        lower.push(maximum(logits) - bounds.of(panel, row));
    }
    if count > lower.len() {
        return f32::NEG_INFINITY;
    }
    // As many as `count` panels have a token that is at least as good as this; so there are as many tokens.
    let of_panels = *lower.select_nth_unstable_by(count - 1, descending).1;
    lower.clear();
    for (panel, logits) in logits.as_chunks::<PANEL>().0.iter().enumerate() {
        let bound = bounds.of(panel, row);
        if is_any(logits, of_panels + bound) {
            for logit in logits {
                if logit - bound >= of_panels {
                    lower.push(logit - bound);
                }
            }
        }
    }
    // Rounding may have left some out.
    if count > lower.len() {
        return of_panels;
    }
    *lower.select_nth_unstable_by(count - 1, descending).1
}

/// Finds about the `count` best tokens, in ascending order: those of the largest logits.
#[inline(always)]
pub(super) fn best_of_logits(logits: &[f32], count: usize, tokens: &mut Vec<usize>, largest: &mut Vec<f32>) {
    largest.clear();
    for logits in logits.as_chunks::<PANEL>().0 {
        largest.push(maximum(logits));
    }
    let count_of_panels = count.min(largest.len());
    // As many panels have a token that is at least as good as this.
    let least = *largest.select_nth_unstable_by(count_of_panels - 1, |a, b| b.total_cmp(a)).1;
    let least = if count > count_of_panels { f32::MIN } else { larger(least, f32::MIN) };
    tokens.clear();
    for (panel, logits) in logits.as_chunks::<PANEL>().0.iter().enumerate() {
        add_tokens(panel, logits, least, tokens);
    }
    if tokens.len() > count {
        tokens.select_nth_unstable_by(count - 1, |&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        tokens.truncate(count);
        tokens.sort_unstable();
    }
}

/// Sums up about e^(logit - best) of all logits, which are at most `best`.
#[inline(always)]
pub(super) fn sum_of_all(logits: &[f32], best: f32) -> f32 {
    let mut sums = [0.0; PANEL];
    for logits in logits.as_chunks::<PANEL>().0 {
        for i in 0..PANEL {
            sums[i] += exp_roughly(logits[i] - best);
        }
    }
    sum(&sums)
}

/// Sums up e^(logit - best) in each panel.
#[inline(always)]
pub(super) fn panel_sums(logits: &[f32], best: f32, sums: &mut [f32]) {
    for (logits, sum) in logits.as_chunks::<PANEL>().0.iter().zip(sums) {
        *sum = sum_of_exponentials(logits, best);
    }
}

/// Sums up e^(logit - best) in one panel.
#[inline(always)]
pub(super) fn sum_of_exponentials(logits: &[f32; PANEL], best: f32) -> f32 {
    let mut exponentials = [0.0; PANEL];
    for i in 0..PANEL {
        exponentials[i] = exp(logits[i] - best);
    }
    sum(&exponentials)
}
