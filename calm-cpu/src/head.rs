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
//! e^bound at most: panels of tokens whose part of the sum can be off by too much are computed exactly, so that all of the sum, and
//! the margin with it, is off by less than [`MARGIN_ERROR`]. The flatter the softmax, the more of them.

use calm_core::{Token, Top2};

use crate::elementwise::{RmsNorm, dot, exp, maximum, sum};
use crate::linear::{Int8Panels, Processor, WeightType, inverse, normalise, quantise};
use crate::panels::PANEL;
use crate::simd::{Simd, with_simd};
use crate::team::{Columns, Scratch, bounds};
use crate::weights::Stored;

/// The softmax response differs from that of the exact head by no more than this.
pub(crate) const MARGIN_ERROR: f32 = 1e-4;

/// Part of a logit's size that f32 sums in another order may differ by, generously.
const ROUNDING: f32 = 1e-5;

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
    logits: &'a [f32],
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
        screened.iter().map(|row| self.leaders(processor, row)[0].0 as Token).collect()
    }

    /// Best tokens of some states and their margins.
    pub(crate) fn top2(&self, processor: &Processor, states: &[f32], room: &mut Vec<f32>) -> Vec<Top2> {
        let screened = self.screen(processor, states, room);
        let mut all = Vec::with_capacity(screened.len());
        for row in &screened {
            let [(token, best), (_, second)] = self.leaders(processor, row);
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
    fn leaders(&self, processor: &Processor, row: &Screened<'_>) -> [(usize, f32); 2] {
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
        let tokens = self.tokens_above(row, lower[1]);
        let logits = match &self.exact {
            Some(exact) => exact.logits(processor, &row.x, &tokens),
            None => tokens.iter().map(|&token| row.logits[token]).collect(),
        };
        for (token, logit) in tokens.into_iter().zip(logits) {
            if logit > best[0].1 {
                best = [(token, logit), best[0]];
            } else if logit > best[1].1 {
                best[1] = (token, logit);
            }
        }
        best
    }

    /// Sum over the vocabulary of e^(logit - best).
    fn total(&self, processor: &Processor, row: &Screened<'_>, best: f32) -> f32 {
        let mut sums = panel_sums(processor, row.logits, best);
        if let Some(exact) = &self.exact {
            // If each panel is off by no more than its share, all are by no more than the whole.
            let share = MARGIN_ERROR * sums.iter().sum::<f32>() / sums.len() as f32;
            let panels = sums.iter().zip(&row.bounds).enumerate();
            let panels = panels.filter(|(_, (sum, bound))| **sum * (exp(**bound) - 1.0) > share);
            let panels: Vec<usize> = panels.map(|(panel, _)| panel).collect();
            let corrected = exact.panel_sums(processor, &row.x, &panels, best);
            panels.iter().zip(corrected).for_each(|(&panel, sum)| sums[panel] = sum);
        }
        sums.iter().sum()
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

    /// Logits of some tokens.
    fn logits(&self, processor: &Processor, x: &[f32], tokens: &[usize]) -> Vec<f32> {
        let mut logits = vec![0.0; tokens.len()];
        let exact = self;
        let (out, room) = (&mut logits, &mut Vec::new());
        with_simd!(processor.set, exact_logits(
            exact: &Exact, x: &[f32], tokens: &[usize], out: &mut [f32], room: &mut Vec<f32>
        ));
        logits
    }

    /// Of some panels the sums of e^(logit - best).
    fn panel_sums(&self, processor: &Processor, x: &[f32], panels: &[usize], best: f32) -> Vec<f32> {
        let mut sums = vec![0.0; panels.len()];
        if panels.is_empty() {
            return sums;
        }
        let bounds = bounds(panels.len(), 1, processor.team.threads());
        let mut parts = Columns::split(&mut sums, panels.len(), &bounds);
        processor.team.each(&mut parts, |part, scratch| {
            let exact = self;
            with_simd!(processor.set, exact_sums_part(
                exact: &Exact, x: &[f32], panels: &[usize], best: f32, part: &mut Columns<'_>, scratch: &mut Scratch
            ));
        });
        sums
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
    let tokens: Vec<usize> = part.range.clone().collect();
    exact_logits::<S>(exact, x, &tokens, part.row(0), &mut scratch.normed);
}

#[inline(always)]
fn exact_logits<S: Simd>(exact: &Exact, x: &[f32], tokens: &[usize], out: &mut [f32], room: &mut Vec<f32>) {
    room.resize(x.len(), 0.0);
    for (&token, logit) in tokens.iter().zip(out) {
        exact.rows.read_row(token, room);
        *logit = dot(x, room);
    }
}

#[inline(always)]
fn exact_sums_part<S: Simd>(
    exact: &Exact,
    x: &[f32],
    panels: &[usize],
    best: f32,
    part: &mut Columns<'_>,
    scratch: &mut Scratch,
) {
    scratch.normed.resize(x.len(), 0.0);
    for (&panel, total) in panels[part.range.clone()].iter().zip(part.row(0)) {
        let mut logits = [f32::NEG_INFINITY; PANEL];
        for (token, logit) in (panel * PANEL..exact.rows.rows()).zip(&mut logits) {
            exact.rows.read_row(token, &mut scratch.normed);
            *logit = dot(x, &scratch.normed);
        }
        *total = sum_of_exponentials(&logits, best);
    }
}

/// For each panel the sum of e^(logit - best).
fn panel_sums(processor: &Processor, logits: &[f32], best: f32) -> Vec<f32> {
    let mut sums = vec![0.0; logits.len() / PANEL];
    let count = sums.len();
    let bounds = bounds(count, 1, processor.team.threads());
    let mut parts = Columns::split(&mut sums, count, &bounds);
    processor.team.each(&mut parts, |part, _| {
        with_simd!(processor.set, sums_part(logits: &[f32], best: f32, part: &mut Columns<'_>));
    });
    sums
}

#[inline(always)]
fn sums_part<S: Simd>(logits: &[f32], best: f32, part: &mut Columns<'_>) {
    let panels = logits.chunks_exact(PANEL).skip(part.range.start);
    for (logits, total) in panels.zip(part.row(0)) {
        *total = sum_of_exponentials(logits, best);
    }
}

/// Of one panel.
#[inline(always)]
fn sum_of_exponentials(logits: &[f32], best: f32) -> f32 {
    let mut exponentials = [0.0; PANEL];
    for (exponential, logit) in exponentials.iter_mut().zip(logits) {
        *exponential = exp(logit - best);
    }
    sum(&exponentials)
}

/// Keeps the two largest, in descending order.
fn insert(largest: &mut [f32; 2], x: f32) {
    if x > largest[0] {
        *largest = [x, largest[0]];
    } else if x > largest[1] {
        largest[1] = x;
    }
}
