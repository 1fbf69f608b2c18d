//! The output head, which finds the best token of a state without reading all of the weights in full.
//!
//! A product with the whole vocabulary is most of the bytes that a token needs. The head is therefore kept
//! twice: in the type of the checkpoint, row by row as in the file, and in 8 bits. For each token the 8-bit
//! product says how large its logit can be at most, and only tokens that can still be the best or the second
//! best are computed exactly.
//!
//! Let x be the normed state, w a row of the head, s q its 8-bit version and t i the 16-bit version of x.
//! Then
//!
//! |w x - s t q i| <= |w - s q| |x| + |s q| |x - t i|
//!
//! (Cauchy and Schwarz), to which a little is added for the rounding of f32. So the token and its logit are
//! always those of the exact head. The margin divides by the sum over all tokens, in which a token that was
//! not computed exactly is off by at most a factor e^bound. Panels of tokens whose part of the sum can be off
//! by too much are computed with 8 more bits, and exactly if that is not enough, so that all of the sum, and
//! the margin with it, is off by less than [`MARGIN_ERROR`]. The flatter the softmax, the more such panels
//! there are.

mod exact;
mod sums;

use calm_checkpoint::WeightType;
use calm_core::{Token, Top2, best_tokens};

use self::exact::{Exact, Quantised};
use self::sums::panel_sums;
use crate::elementwise::{RmsNorm, exp, maximum};
use crate::linear::{Int8Panels, Processor, normalise, quantise};
use crate::panels::PANEL;
use crate::simd::{Simd, with_simd};
use crate::states::States;
use crate::team::{Columns, Scratch, bounds};
use crate::weights::Stored;

/// Largest difference between the softmax response and that of the exact head.
pub(crate) const MARGIN_ERROR: f32 = 1e-3;

/// The head [vocab_size, d_model], with the norm in front of it.
pub(crate) struct Head {
    norm: RmsNorm,
    screen: Int8Panels,
    /// The exact head; `None` if the 8-bit head is the head.
    exact: Option<Exact>,
}

/// What the screening found out about one row.
struct Screened<'a> {
    x: Quantised,
    /// 8-bit logits, filled up to whole panels with minus infinity.
    logits: &'a [f32],
    /// The largest logit of each panel.
    largest: Vec<f32>,
    /// How far the logits of each panel may be off.
    bounds: Vec<f32>,
}

impl Head {
    pub(crate) fn new(norm: RmsNorm, rows: Stored, weight_type: WeightType) -> Self {
        let screen = Int8Panels::pack(rows.rows(), rows.columns(), |row, to| rows.read_row(row, to));
        let exact = (weight_type != WeightType::Int8).then(|| Exact::new(rows, &screen));
        Head { norm, screen, exact }
    }

    /// Number of bytes of the weights that are in memory in addition to the mapped file.
    pub(crate) fn bytes(&self) -> usize {
        self.screen.panels.bytes()
    }

    fn vocab_size(&self) -> usize {
        self.screen.panels.outputs()
    }

    /// Finds the best tokens of some states. What is in `logits` is written over; a caller that keeps it
    /// saves an allocation.
    pub(crate) fn best(
        &self,
        processor: &Processor,
        states: &States<'_>,
        logits: &mut Vec<f32>,
    ) -> Vec<Token> {
        let screened = self.screen(processor, states, logits);
        screened.iter().map(|row| self.best_two(processor, row)[0].0 as Token).collect()
    }

    /// Finds the best tokens of some states and their margins.
    pub(crate) fn top2(
        &self,
        processor: &Processor,
        states: &States<'_>,
        logits: &mut Vec<f32>,
    ) -> Vec<Top2> {
        let screened = self.screen(processor, states, logits);
        screened.iter().map(|row| self.top2_of(processor, row)).collect()
    }

    /// Finds the `count` best tokens of some states, exactly.
    pub(crate) fn best_tokens(
        &self,
        processor: &Processor,
        states: &States<'_>,
        count: usize,
        logits: &mut Vec<f32>,
    ) -> Vec<Vec<Token>> {
        let best = |row: &Screened<'_>| {
            // As many as `count` panels have a token that is at least as good as this; with fewer panels it
            // is every token.
            let mut lower: Vec<f32> = row.largest.iter().zip(&row.bounds).map(|(a, b)| a - b).collect();
            let least = match count <= lower.len() {
                true => *lower.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1,
                false => f32::NEG_INFINITY,
            };
            let tokens = self.tokens_above(row, least);
            let best = best_tokens(&self.token_logits(processor, row, &tokens), count);
            best.into_iter().map(|index| tokens[index as usize] as Token).collect()
        };
        self.screen(processor, states, logits).iter().map(best).collect()
    }

    /// Finds best tokens and margins in a vocabulary of some tokens, which each state has its own of.
    pub(crate) fn top2_among(
        &self,
        processor: &Processor,
        states: &States<'_>,
        candidates: &[&[Token]],
    ) -> Vec<Top2> {
        let mut normed = Vec::new();
        let normed = normalise(&self.norm, states, &mut normed).chunks_exact(self.norm.weight.len());
        let top2 = |(x, candidates): (&[f32], &&[Token])| {
            let tokens: Vec<usize> = candidates.iter().map(|&token| token as usize).collect();
            let logits = match &self.exact {
                Some(exact) => exact.logits(processor, x, &tokens),
                None => self.some_coarse_logits(processor, x, &tokens),
            };
            let mut logits = logits.into_iter();
            Top2::among(candidates, |_| logits.next().unwrap_or(f32::NEG_INFINITY))
        };
        normed.zip(candidates).map(top2).collect()
    }

    fn top2_of(&self, processor: &Processor, row: &Screened<'_>) -> Top2 {
        let [(token, best), (_, second)] = self.best_two(processor, row);
        let lead = 1.0 - f64::from(second - best).exp();
        let margin = lead / f64::from(self.total(processor, row, best, lead as f32));
        Top2 { token: token as Token, margin: margin as f32 }
    }

    /// Computes the 8-bit logits of some tokens, which are in ascending order.
    fn some_coarse_logits(&self, processor: &Processor, x: &[f32], tokens: &[usize]) -> Vec<f32> {
        let x = Quantised::new(x, self.screen.panels.padded_inputs());
        let mut logits = Vec::with_capacity(tokens.len());
        let (head, x, out) = (self, &x, &mut logits);
        with_simd!(processor.set, coarse_logits(
            head: &Head, x: &Quantised, tokens: &[usize], out: &mut Vec<f32>
        ));
        logits
    }

    /// Computes all logits of some states: [rows, vocab_size].
    pub(crate) fn logits(&self, processor: &Processor, states: &States<'_>) -> Vec<f32> {
        let vocab_size = self.vocab_size();
        let mut all = Vec::with_capacity(states.len() * vocab_size);
        let Some(exact) = &self.exact else {
            for row in self.screen(processor, states, &mut Vec::new()) {
                all.extend_from_slice(&row.logits[..vocab_size]);
            }
            return all;
        };
        let mut normed = Vec::new();
        for x in normalise(&self.norm, states, &mut normed).chunks_exact(self.norm.weight.len()) {
            all.extend(exact.all_logits(processor, x));
        }
        all
    }

    /// Computes the 8-bit logits of some states.
    fn screen<'a>(
        &self,
        processor: &Processor,
        states: &States<'_>,
        logits: &'a mut Vec<f32>,
    ) -> Vec<Screened<'a>> {
        let (width, panels) = (self.norm.weight.len(), self.screen.panels.len());
        let rows = states.len();
        let padded = panels * PANEL;
        logits.resize(rows * padded, 0.0);
        let bounds = bounds(padded, PANEL, processor.team.threads());
        let mut parts = Columns::split(logits, padded, &bounds);
        processor.team.each(&mut parts, |part, scratch| {
            let head = self;
            with_simd!(processor.set, screen_part(
                head: &Head, states: &States<'_>, part: &mut Columns<'_>, scratch: &mut Scratch
            ));
        });
        let mut normed = Vec::new();
        let normed = normalise(&self.norm, states, &mut normed);
        let rows = normed.chunks_exact(width).zip(logits.chunks_exact_mut(padded));
        rows.map(|(x, logits)| {
            logits[self.vocab_size()..].fill(f32::NEG_INFINITY);
            let x = Quantised::new(x, self.screen.panels.padded_inputs());
            let bounds = match &self.exact {
                Some(exact) => exact.bounds.of(&x),
                None => vec![0.0; panels],
            };
            let mut largest = vec![0.0; panels];
            let (from, to) = (&*logits, &mut largest);
            with_simd!(processor.set, panel_maxima(from: &[f32], to: &mut [f32]));
            Screened { x, largest, bounds, logits }
        })
        .collect()
    }

    /// Finds the best and the second best token with their exact logits. The lower token wins a tie.
    fn best_two(&self, processor: &Processor, row: &Screened<'_>) -> [(usize, f32); 2] {
        // This is the least logit that the second best token has. All best tokens of the panels but one are
        // as good as it or worse, and so is the second best token of the panel where the best one is.
        let mut lower = [f32::NEG_INFINITY; 2];
        for (panel, (&largest, &bound)) in row.largest.iter().zip(&row.bounds).enumerate() {
            if largest - bound > lower[1] {
                for &logit in &row.logits[panel * PANEL..][..PANEL] {
                    insert(&mut lower, logit - bound);
                }
            }
        }
        let tokens = self.tokens_above(row, lower[1]);
        let logits = self.token_logits(processor, row, &tokens);
        two_best(tokens.into_iter().zip(logits))
    }

    /// Computes the exact logits of some tokens.
    fn token_logits(&self, processor: &Processor, row: &Screened<'_>, tokens: &[usize]) -> Vec<f32> {
        match &self.exact {
            Some(exact) => exact.logits(processor, &row.x.x, tokens),
            None => tokens.iter().map(|&token| row.logits[token]).collect(),
        }
    }

    /// Computes Z, the sum over the vocabulary of e^(logit - best).
    ///
    /// It is so exact that the margin, lead / Z, is off by at most [`MARGIN_ERROR`].
    fn total(&self, processor: &Processor, row: &Screened<'_>, best: f32, lead: f32) -> f32 {
        let mut sums = panel_sums(processor, row.logits, best);
        let Some(exact) = &self.exact else { return sums.iter().sum() };
        // An error e of Z changes the margin by lead e / Z^2: the flatter the softmax, the more Z may be off.
        // If each panel is off by no more than its share, all together are off by no more than the whole.
        let least: f32 = sums.iter().zip(&row.bounds).map(|(sum, bound)| sum * exp(-bound)).sum();
        let share = MARGIN_ERROR * least * least / lead.max(f32::MIN_POSITIVE) / sums.len() as f32;
        let is_off = |sum: f32, bound: f32| sum * (exp(bound) - 1.0) > share;
        let mut off: Vec<usize> =
            (0..sums.len()).filter(|&panel| is_off(sums[panel], row.bounds[panel])).collect();
        if !off.is_empty() {
            let refined = exact.refined_sums(processor, &row.x, row.logits, &off, best);
            off.iter().zip(refined).for_each(|(&panel, sum)| sums[panel] = sum);
            let bounds = exact.fine_bounds.of(&row.x);
            off.retain(|&panel| is_off(sums[panel], bounds[panel]));
        }
        if !off.is_empty() {
            let corrected = exact.sums(processor, &row.x.x, &off, best);
            off.iter().zip(corrected).for_each(|(&panel, sum)| sums[panel] = sum);
        }
        sums.iter().sum()
    }

    /// Finds the tokens whose exact logit may be `least` or more, in ascending order.
    fn tokens_above(&self, row: &Screened<'_>, least: f32) -> Vec<usize> {
        let panels = row.largest.iter().zip(&row.bounds).enumerate();
        let panels = panels.filter(|(_, (largest, bound))| **largest + **bound >= least);
        let tokens = panels.flat_map(|(panel, (_, bound))| {
            let logits = row.logits[panel * PANEL..][..PANEL].iter().enumerate();
            logits.filter(move |(_, logit)| *logit + bound >= least).map(move |(i, _)| panel * PANEL + i)
        });
        tokens.filter(|&token| token < self.vocab_size()).collect()
    }
}

#[inline(always)]
fn screen_part<S: Simd>(head: &Head, states: &States<'_>, part: &mut Columns<'_>, scratch: &mut Scratch) {
    let Scratch { normed, quantised, scales, .. } = scratch;
    let input = normalise(&head.norm, states, normed);
    let panels = &head.screen.panels;
    quantise(input, head.norm.weight.len(), panels.padded_inputs(), quantised, scales);
    let range = part.range.start / PANEL..part.range.end / PANEL;
    panels.product::<S>(
        range,
        quantised,
        #[inline(always)]
        |panel, row, sums| {
            let first = panel * PANEL - part.range.start;
            part.row(row)[first..][..PANEL].copy_from_slice(&head.screen.scaled(panel, sums, scales[row]));
        },
    );
}

#[inline(always)]
fn panel_maxima<S: Simd>(logits: &[f32], largest: &mut [f32]) {
    for (panel, largest) in logits.chunks_exact(PANEL).zip(largest) {
        *largest = maximum(panel);
    }
}

#[inline(always)]
fn coarse_logits<S: Simd>(head: &Head, x: &Quantised, tokens: &[usize], out: &mut Vec<f32>) {
    for of_panel in tokens.chunk_by(|a, b| a / PANEL == b / PANEL) {
        let panel = of_panel[0] / PANEL;
        head.screen.panels.product::<S>(
            panel..panel + 1,
            &x.integers,
            #[inline(always)]
            |_, _, sums| {
                let logits = head.screen.scaled(panel, sums, x.scale);
                out.extend(of_panel.iter().map(|token| logits[token % PANEL]));
            },
        );
    }
}

/// Finds the two best of tokens that ascend. The lower token wins a tie.
fn two_best(tokens: impl Iterator<Item = (usize, f32)>) -> [(usize, f32); 2] {
    let mut best = [(0, f32::NEG_INFINITY); 2];
    for (token, logit) in tokens {
        if logit > best[0].1 {
            best = [(token, logit), best[0]];
        } else if logit > best[1].1 {
            best[1] = (token, logit);
        }
    }
    best
}

/// Inserts a number into the two largest, which are in descending order.
fn insert(largest: &mut [f32; 2], x: f32) {
    if x > largest[0] {
        *largest = [x, largest[0]];
    } else if x > largest[1] {
        largest[1] = x;
    }
}
