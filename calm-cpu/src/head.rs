//! The output head: from a state to the best token, without reading all of the weights in full.
//!
//! A product with the whole vocabulary is most of the bytes that a token needs. The head is therefore kept twice: in the type of the
//! checkpoint, row by row as in the file, and in 8 bits. The 8-bit product says of each token how large its logit can be at most, and
//! only tokens that can still be the best or the second best are computed exactly.
//!
//! With x the normed state, w a row of the head, s q its 8-bit version and t i the 16-bit version of x,
//!
//! |w x - s t q i| <= |w - s q| |x| + t/2 s |q|_1
//!
//! (Cauchy and Schwarz; Hoelder), to which a little is added for the rounding of f32. So the token and its logit are those of the exact
//! head, always. The margin divides by the sum over all tokens, in which a token that was not computed exactly is off by a factor
//! e^bound at most: tokens are computed exactly, from the best one down, until what the others can be off by is less than
//! [`MARGIN_ERROR`] of the sum, and the margin less than that.

use calm_core::{Token, Top2};

use crate::elementwise::{RmsNorm, dot, exp, maximum, sum};
use crate::linear::{Int8Panels, Processor, WeightType, inverse, normalise, quantise};
use crate::panels::PANEL;
use crate::simd::{Simd, with_simd};
use crate::team::{Columns, Scratch, bounds};
use crate::weights::Stored;

/// The softmax response differs from that of the exact head by no more than this.
pub(crate) const MARGIN_ERROR: f32 = 1e-4;

/// Distances from the best logit within which tokens are computed exactly, tried one after the other.
const NEAR: [f32; 4] = [4.0, 8.0, 16.0, f32::INFINITY];

/// Part of a logit's size that f32 sums in another order may differ by, generously.
const ROUNDING: f32 = 1e-5;

/// Tokens whose exponentials are added up before all of these sums are: the same for any number of threads.
const BLOCK: usize = 1024;

/// The head [vocab_size, d_model] with the norm before it.
pub(crate) struct Head {
    norm: RmsNorm,
    screen: Int8Panels,
    /// None where the 8-bit head is the head.
    exact: Option<Exact>,
}

struct Exact {
    rows: Stored,
    /// For each panel the largest |w - s q|.
    residual: Vec<f32>,
    /// For each panel the largest s |q|_1.
    size: Vec<f32>,
}

/// What the screening found for one row.
struct Screened<'a> {
    /// [d_model]
    x: Vec<f32>,
    /// 8-bit logits, filled up to whole panels with minus infinity.
    logits: &'a mut [f32],
    /// For each panel its largest logit.
    largest: Vec<f32>,
    /// For each panel how far its logits may be off.
    bounds: Vec<f32>,
}

impl Head {
    pub(crate) fn new(norm: RmsNorm, rows: Stored, weight_type: WeightType) -> Self {
        let screen = Int8Panels::pack(rows.rows(), rows.columns(), |row, to| rows.read_row(row, to));
        let exact = (weight_type != WeightType::Int8).then(|| Exact::new(rows, &screen));
        Head { norm, screen, exact }
    }

    /// Bytes of the weights that are held in memory beside the mapped file.
    pub(crate) fn bytes(&self) -> usize {
        self.screen.panels.bytes()
    }

    fn vocab_size(&self) -> usize {
        self.screen.panels.outputs()
    }

    /// Best tokens of some states [rows, d_model]. `room` is for the logits; a caller that keeps it saves its allocation.
    pub(crate) fn best(&self, processor: &Processor, states: &[f32], room: &mut Vec<f32>) -> Vec<Token> {
        let screened = self.screen(processor, states, room);
        screened.iter().map(|row| self.leaders(row)[0].0 as Token).collect()
    }

    /// Best tokens of some states and their margins.
    pub(crate) fn top2(&self, processor: &Processor, states: &[f32], room: &mut Vec<f32>) -> Vec<Top2> {
        let mut screened = self.screen(processor, states, room);
        let mut all = Vec::with_capacity(screened.len());
        for row in &mut screened {
            let [(token, best), (_, second)] = self.leaders(row);
            let total = self.total(processor, row, best);
            let margin = (1.0 - f64::from(second - best).exp()) / f64::from(total);
            all.push(Top2 { token: token as Token, margin: margin as f32 });
        }
        all
    }

    /// All logits of some states: [rows, vocab_size].
    pub(crate) fn logits(&self, processor: &Processor, states: &[f32]) -> Vec<f32> {
        let vocab_size = self.vocab_size();
        let mut all = Vec::with_capacity(states.len() / self.norm.weight.len() * vocab_size);
        let Some(exact) = &self.exact else {
            for row in self.screen(processor, states, &mut Vec::new()) {
                all.extend_from_slice(&row.logits[..vocab_size]);
            }
            return all;
        };
        let mut normed = Vec::new();
        for x in normalise(Some(&self.norm), states, &mut normed).chunks_exact(self.norm.weight.len()) {
            let start = all.len();
            all.resize(start + vocab_size, 0.0);
            let bounds = bounds(vocab_size, 1, processor.team.threads());
            let mut parts = Columns::split(&mut all[start..], vocab_size, &bounds);
            processor.team.each(&mut parts, |part, scratch| {
                with_simd!(processor.set, exact_part(
                    exact: &Exact, x: &[f32], part: &mut Columns<'_>, scratch: &mut Scratch
                ));
            });
        }
        all
    }

    /// 8-bit logits of some states.
    fn screen<'a>(&self, processor: &Processor, states: &[f32], room: &'a mut Vec<f32>) -> Vec<Screened<'a>> {
        let (width, panels) = (self.norm.weight.len(), self.screen.panels.len());
        let rows = states.len() / width;
        let padded = panels * PANEL;
        room.resize(rows * padded, 0.0);
        let bounds = bounds(padded, PANEL, processor.team.threads());
        let mut parts = Columns::split(room, padded, &bounds);
        processor.team.each(&mut parts, |part, scratch| {
            let head = self;
            with_simd!(processor.set, screen_part(
                head: &Head, states: &[f32], part: &mut Columns<'_>, scratch: &mut Scratch
            ));
        });
        let mut normed = Vec::new();
        let normed = normalise(Some(&self.norm), states, &mut normed);
        let rows = normed.chunks_exact(width).zip(room.chunks_exact_mut(padded));
        rows.map(|(x, logits)| {
            logits[self.vocab_size()..].fill(f32::NEG_INFINITY);
            Screened {
                x: x.to_vec(),
                largest: logits.chunks_exact(PANEL).map(maximum).collect(),
                bounds: self.exact.as_ref().map_or_else(|| vec![0.0; panels], |exact| exact.bounds(x)),
                logits,
            }
        })
        .collect()
    }

    /// The best and the second best token with their logits, exact. The lower token wins a tie.
    fn leaders(&self, row: &Screened<'_>) -> [(usize, f32); 2] {
        // What the second best has at least: of the panels' best tokens all but one are as good as it or worse, and so is the second
        // best token of the panel where the best one is.
        let mut lower = [f32::NEG_INFINITY; 2];
        for (panel, (&largest, &bound)) in row.largest.iter().zip(&row.bounds).enumerate() {
            if largest - bound > lower[1] {
                for &logit in &row.logits[panel * PANEL..][..PANEL] {
                    insert(&mut lower, logit - bound);
                }
            }
        }
        let mut best = [(0, f32::NEG_INFINITY); 2];
        for token in self.tokens_above(row, lower[1]) {
            let logit = self.exact_logit(row, token);
            if logit > best[0].1 {
                best = [(token, logit), best[0]];
            } else if logit > best[1].1 {
                best[1] = (token, logit);
            }
        }
        best
    }

    /// Sum over the vocabulary of e^(logit - best).
    fn total(&self, processor: &Processor, row: &mut Screened<'_>, best: f32) -> f32 {
        if self.exact.is_none() {
            return sum_of_exponentials(processor, row.logits, best);
        }
        let factor = exp(maximum(&row.bounds)) - 1.0;
        let mut total = 0.0;
        for distance in NEAR {
            let mut near = 0.0;
            for token in self.tokens_above(row, best - distance) {
                row.logits[token] = self.exact_logit(row, token);
                near += exp(row.logits[token] - best);
            }
            total = sum_of_exponentials(processor, row.logits, best);
            if (total - near) * factor <= MARGIN_ERROR * total {
                break;
            }
        }
        total
    }

    /// Tokens whose exact logit may be `least` or more, in ascending order.
    fn tokens_above(&self, row: &Screened<'_>, least: f32) -> Vec<usize> {
        let panels = row.largest.iter().zip(&row.bounds).enumerate();
        let panels = panels.filter(|(_, (largest, bound))| **largest + **bound >= least);
        let tokens = panels.flat_map(|(panel, (_, bound))| {
            let logits = row.logits[panel * PANEL..][..PANEL].iter().enumerate();
            logits.filter(move |(_, logit)| *logit + bound >= least).map(move |(i, _)| panel * PANEL + i)
        });
        tokens.filter(|&token| token < self.vocab_size()).collect()
    }

    fn exact_logit(&self, row: &Screened<'_>, token: usize) -> f32 {
        let Some(exact) = &self.exact else { return row.logits[token] };
        let mut weights = vec![0.0; row.x.len()];
        exact.rows.read_row(token, &mut weights);
        dot(&row.x, &weights)
    }
}

impl Exact {
    fn new(rows: Stored, screen: &Int8Panels) -> Self {
        let panels = screen.panels.len();
        let (mut residual, mut size) = (vec![0.0_f32; panels], vec![0.0_f32; panels]);
        let mut weights = vec![0.0; rows.columns()];
        for row in 0..rows.rows() {
            rows.read_row(row, &mut weights);
            let scale = screen.scales[row];
            let factor = inverse(scale);
            let (mut squares, mut sizes) = (0.0, 0.0);
            for &weight in &weights {
                let rounded = f64::from((weight * factor).round()) * f64::from(scale);
                squares += (f64::from(weight) - rounded).powi(2);
                sizes += rounded.abs();
            }
            let panel = row / PANEL;
            residual[panel] = residual[panel].max(squares.sqrt() as f32);
            size[panel] = size[panel].max(sizes as f32);
        }
        Exact { rows, residual, size }
    }

    /// How far the 8-bit logits of `x` may be off, for each panel.
    fn bounds(&self, x: &[f32]) -> Vec<f32> {
        let length = dot(x, x).sqrt();
        let (mut quantised, mut scales) = (Vec::new(), Vec::new());
        quantise(x, x.len(), x.len(), &mut quantised, &mut scales);
        let half_step = scales[0] / 2.0;
        let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let bound = |(&residual, &size): (&f32, &f32)| {
            residual * length * (1.0 + ROUNDING) + half_step * size * 1.01 + ROUNDING * size * largest
        };
        self.residual.iter().zip(&self.size).map(bound).collect()
    }
}

#[inline(always)]
fn screen_part<S: Simd>(head: &Head, states: &[f32], part: &mut Columns<'_>, scratch: &mut Scratch) {
    let Scratch { normed, quantised, scales, .. } = scratch;
    let input = normalise(Some(&head.norm), states, normed);
    let panels = &head.screen.panels;
    quantise(input, head.norm.weight.len(), panels.padded_inputs(), quantised, scales);
    let range = part.range.start / PANEL..part.range.end / PANEL;
    panels.product::<S>(range, quantised, |panel, row, sums| {
        let first = panel * PANEL - part.range.start;
        part.row(row)[first..][..PANEL].copy_from_slice(&head.screen.scaled(panel, sums, scales[row]));
    });
}

#[inline(always)]
fn exact_part<S: Simd>(exact: &Exact, x: &[f32], part: &mut Columns<'_>, scratch: &mut Scratch) {
    let weights = &mut scratch.normed;
    weights.resize(x.len(), 0.0);
    for (token, logit) in part.range.clone().zip(part.row(0)) {
        exact.rows.read_row(token, weights);
        *logit = dot(x, weights);
    }
}

/// Sum over the vocabulary of e^(logit - best).
fn sum_of_exponentials(processor: &Processor, logits: &[f32], best: f32) -> f32 {
    let mut blocks = vec![0.0; logits.len().div_ceil(BLOCK)];
    let count = blocks.len();
    let bounds = bounds(count, 1, processor.team.threads());
    let mut parts = Columns::split(&mut blocks, count, &bounds);
    processor.team.each(&mut parts, |part, scratch| {
        with_simd!(processor.set, exponentials_part(
            logits: &[f32], best: f32, part: &mut Columns<'_>, scratch: &mut Scratch
        ));
    });
    blocks.iter().sum()
}

#[inline(always)]
fn exponentials_part<S: Simd>(logits: &[f32], best: f32, part: &mut Columns<'_>, scratch: &mut Scratch) {
    let room = &mut scratch.normed;
    for (block, total) in part.range.clone().zip(part.row(0)) {
        let block = &logits[block * BLOCK..logits.len().min((block + 1) * BLOCK)];
        room.clear();
        room.extend(block.iter().map(|logit| exp(logit - best)));
        *total = sum(room);
    }
}

/// Keeps the two largest, in descending order.
fn insert(largest: &mut [f32; 2], x: f32) {
    if x > largest[0] {
        *largest = [x, largest[0]];
    } else if x > largest[1] {
        largest[1] = x;
    }
}
