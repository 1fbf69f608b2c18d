//! The exact head, what is between it and the 8-bit one, and how far apart the two can be.

use super::sums::sum_of_exponentials;
use crate::elementwise::dot;
use crate::linear::{Int8Panels, Processor, inverse, quantise};
use crate::panels::PANEL;
use crate::simd::{LANES, Simd, with_simd};
use crate::team::{Columns, bounds};
use crate::weights::Stored;

/// The head in the type of the checkpoint.
pub(super) struct Exact {
    rows: Stored,
    /// What is left of each weight after the 8-bit head, in 8 bits of its own.
    fine: Int8Panels,
    /// Bounds on the errors of the 8-bit logits.
    pub(super) bounds: Bounds,
    /// Bounds on the errors of the sum of the 8-bit logits and what `fine` gives.
    pub(super) fine_bounds: Bounds,
}

/// Bounds on the errors of all logits of a panel.
pub(super) struct Bounds {
    /// The largest distance of a row from its approximation, for each panel.
    residual: Vec<f32>,
    /// The largest length of an approximation of a row, for each panel.
    length: Vec<f32>,
}

/// A normed state, and the integers that approximate it.
pub(super) struct Quantised {
    /// The state: [d_model]
    pub(super) x: Vec<f32>,
    /// The integers, filled up to whole pairs.
    pub(super) integers: Vec<i16>,
    pub(super) scale: f32,
    /// The length |x|.
    length: f32,
    /// The rest |x - scale * integers|.
    residual: f32,
}

impl Quantised {
    pub(super) fn new(x: &[f32], padded: usize) -> Self {
        let (mut integers, mut scales) = (Vec::new(), Vec::new());
        quantise(x, x.len(), padded, &mut integers, &mut scales);
        let squares = x.iter().zip(&integers).map(|(&x, &integer)| {
            let rounded = f64::from(integer) * f64::from(scales[0]);
            (f64::from(x) - rounded).powi(2)
        });
        let residual = squares.sum::<f64>().sqrt() as f32;
        Quantised { x: x.to_vec(), integers, scale: scales[0], length: dot(x, x).sqrt(), residual }
    }
}

impl Bounds {
    fn new(panels: usize) -> Self {
        Bounds { residual: vec![0.0; panels], length: vec![0.0; panels] }
    }

    /// Takes in a row, for which `approximation` stands.
    fn add(&mut self, token: usize, row: &[f32], approximation: &[f64]) {
        let pairs = || row.iter().zip(approximation);
        let residual = pairs().map(|(&w, a)| (f64::from(w) - a).powi(2)).sum::<f64>().sqrt() as f32;
        let length = approximation.iter().map(|a| a * a).sum::<f64>().sqrt() as f32;
        let panel = token / PANEL;
        self.residual[panel] = self.residual[panel].max(residual);
        self.length[panel] = self.length[panel].max(length);
    }

    /// Returns the bound of each panel.
    pub(super) fn of(&self, x: &Quantised) -> Vec<f32> {
        // This is the error of f32 sums in 16 parts, as a part of |w| |x|, twice.
        let rounding = (x.x.len() as f32 / LANES as f32 + 8.0) * f32::EPSILON;
        let bound = |(&residual, &length): (&f32, &f32)| {
            (residual * x.length + length * x.residual) * 1.001 + rounding * (length + residual) * x.length
        };
        self.residual.iter().zip(&self.length).map(bound).collect()
    }
}

impl Exact {
    pub(super) fn new(rows: Stored, coarse: &Int8Panels) -> Self {
        let step = |weight: f32, scale: f32| (weight * inverse(scale)).round() * scale;
        let fine = Int8Panels::pack(rows.rows(), rows.columns(), |token, to| {
            rows.read_row(token, to);
            to.iter_mut().for_each(|weight| *weight -= step(*weight, coarse.scales[token]));
        });
        let panels = coarse.panels.len();
        let (mut bounds, mut fine_bounds) = (Bounds::new(panels), Bounds::new(panels));
        let mut row = vec![0.0; rows.columns()];
        let mut approximation = vec![0.0; rows.columns()];
        for token in 0..rows.rows() {
            rows.read_row(token, &mut row);
            for (approximation, &weight) in approximation.iter_mut().zip(&row) {
                *approximation = f64::from(step(weight, coarse.scales[token]));
            }
            bounds.add(token, &row, &approximation);
            for (approximation, &weight) in approximation.iter_mut().zip(&row) {
                let rest = weight - step(weight, coarse.scales[token]);
                *approximation += f64::from(step(rest, fine.scales[token]));
            }
            fine_bounds.add(token, &row, &approximation);
        }
        Exact { rows, fine, bounds, fine_bounds }
    }

    /// Computes the logits of some tokens.
    pub(super) fn logits(&self, processor: &Processor, x: &[f32], tokens: &[usize]) -> Vec<f32> {
        let mut logits = vec![0.0; tokens.len()];
        let (exact, out) = (self, &mut logits);
        with_simd!(processor.set, token_logits(
            exact: &Exact, x: &[f32], tokens: &[usize], out: &mut [f32]
        ));
        logits
    }

    /// Computes the logits of all tokens.
    pub(super) fn all_logits(&self, processor: &Processor, x: &[f32]) -> Vec<f32> {
        let exact = self;
        spread(processor, self.rows.rows(), |part| {
            with_simd!(processor.set, logits_part(exact: &Exact, x: &[f32], part: &mut Columns<'_>));
        })
    }

    /// Sums up e^(logit - best) in each of some panels.
    pub(super) fn sums(&self, processor: &Processor, x: &[f32], panels: &[usize], best: f32) -> Vec<f32> {
        let exact = self;
        spread(processor, panels.len(), |part| {
            with_simd!(processor.set, sums_part(
                exact: &Exact, x: &[f32], panels: &[usize], best: f32, part: &mut Columns<'_>
            ));
        })
    }

    /// Sums up the same from logits of 8 bits and 8 more.
    pub(super) fn refined_sums(
        &self,
        processor: &Processor,
        x: &Quantised,
        coarse: &[f32],
        panels: &[usize],
        best: f32,
    ) -> Vec<f32> {
        let exact = self;
        spread(processor, panels.len(), |part| {
            with_simd!(processor.set, refined_part(
                exact: &Exact, x: &Quantised, coarse: &[f32], panels: &[usize], best: f32, part: &mut Columns<'_>
            ));
        })
    }
}

/// Computes `count` numbers, divided among the threads.
fn spread(processor: &Processor, count: usize, f: impl Fn(&mut Columns<'_>) + Sync) -> Vec<f32> {
    let mut numbers = vec![0.0; count];
    let bounds = bounds(count, 1, processor.team.threads());
    processor.team.each(&mut Columns::split(&mut numbers, count, &bounds), |part, _| f(part));
    numbers
}

#[inline(always)]
fn token_logits<S: Simd>(exact: &Exact, x: &[f32], tokens: &[usize], out: &mut [f32]) {
    for (&token, logit) in tokens.iter().zip(out) {
        *logit = exact.rows.dot_row(token, x);
    }
}

#[inline(always)]
fn logits_part<S: Simd>(exact: &Exact, x: &[f32], part: &mut Columns<'_>) {
    let tokens: Vec<usize> = part.range.clone().collect();
    token_logits::<S>(exact, x, &tokens, part.row(0));
}

#[inline(always)]
fn sums_part<S: Simd>(exact: &Exact, x: &[f32], panels: &[usize], best: f32, part: &mut Columns<'_>) {
    for (&panel, total) in panels[part.range.clone()].iter().zip(part.row(0)) {
        let tokens: Vec<usize> = (panel * PANEL..exact.rows.rows()).take(PANEL).collect();
        let mut logits = [f32::NEG_INFINITY; PANEL];
        token_logits::<S>(exact, x, &tokens, &mut logits);
        *total = sum_of_exponentials(&logits, best);
    }
}

#[inline(always)]
fn refined_part<S: Simd>(
    exact: &Exact,
    x: &Quantised,
    coarse: &[f32],
    panels: &[usize],
    best: f32,
    part: &mut Columns<'_>,
) {
    let fine = &exact.fine;
    for (&panel, total) in panels[part.range.clone()].iter().zip(part.row(0)) {
        fine.panels.product::<S>(
            panel..panel + 1,
            &x.integers,
            #[inline(always)]
            |panel, _, sums| {
                let mut logits = fine.scaled(panel, sums, x.scale);
                for (logit, coarse) in logits.iter_mut().zip(&coarse[panel * PANEL..]) {
                    *logit += coarse;
                }
                *total = sum_of_exponentials(&logits, best);
            },
        );
    }
}
