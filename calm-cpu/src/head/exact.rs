//! The exact head: logits of single tokens, and 8 more bits for those whose 8-bit logits do not suffice.

use super::screen::{Bounds, Row, rounding};
use super::{Head, Room};
use crate::int8::{Int8Panels, inverse};
use crate::linear::Processor;
use crate::panels::PANEL;
use crate::simd::{Simd, with_simd};
use crate::team::{Columns, bounds};
use crate::weights::Stored;

/// What makes the 8-bit logits exact.
pub(super) enum Rest {
    /// The head is that of the checkpoint.
    Fine(Fine),
    /// The head has 8 bits itself, and more of the inputs than screening reads.
    Int8,
}

/// What is left of each weight after the 8-bit head, in 8 bits of its own.
pub(super) struct Fine {
    pub(super) weights: Int8Panels,
    /// Bounds on what both together leave.
    bounds: Bounds,
}

impl Fine {
    /// Makes the rest of a head, and the bounds on the errors of its 8-bit version.
    pub(super) fn new(rows: &Stored, screen: &Int8Panels) -> (Self, Bounds) {
        let weights = Int8Panels::pack(rows.rows(), rows.columns(), |token, to| {
            rows.read_row(token, to);
            to.iter_mut().for_each(|weight| *weight -= rounded(*weight, screen.scales[token]));
        });
        let panels = screen.panels.len();
        let (mut bounds, mut fine_bounds) = (Bounds::new(panels), Bounds::new(panels));
        let mut row = vec![0.0; rows.columns()];
        let mut approximation = vec![0.0; rows.columns()];
        for token in 0..rows.rows() {
            rows.read_row(token, &mut row);
            for (approximation, &weight) in approximation.iter_mut().zip(&row) {
                *approximation = f64::from(rounded(weight, screen.scales[token]));
            }
            bounds.add(token, &row, &approximation);
            for (approximation, &weight) in approximation.iter_mut().zip(&row) {
                let rest = weight - rounded(weight, screen.scales[token]);
                *approximation += f64::from(rounded(rest, weights.scales[token]));
            }
            fine_bounds.add(token, &row, &approximation);
        }
        (Fine { weights, bounds: fine_bounds }, bounds)
    }

    /// How far logits of a panel may be off if both the weights and the state have 8 bits and 8 more, but for
    /// the product of what the latter stand for. `rest` is the length of what is left of the state then.
    #[inline(always)]
    pub(super) fn bound(&self, coarse: &Bounds, panel: usize, row: &Row, rest: f32) -> f32 {
        let (residual, length) = (self.bounds.residual[panel], self.bounds.length[panel]);
        let both = (coarse.residual[panel] + residual) * (row.residual + rest);
        let rounding = rounding(self.weights.panels.padded_inputs()) * (residual + length) * row.length;
        (residual * row.length + length * rest + both) * 1.001 + rounding
    }
}

/// The bounds of a head that has 8 bits.
pub(super) fn int8_bounds(rows: &Stored, screen: &Int8Panels) -> Bounds {
    let mut bounds = Bounds::new(screen.panels.len());
    let mut row = vec![0.0; rows.columns()];
    for token in 0..rows.rows() {
        rows.read_row(token, &mut row);
        row.iter_mut().for_each(|weight| *weight = rounded(*weight, screen.scales[token]));
        let approximation: Vec<f64> = row.iter().map(|&weight| f64::from(weight)).collect();
        bounds.add(token, &row, &approximation);
    }
    bounds
}

/// The number that a weight of 8 bits stands for.
fn rounded(weight: f32, scale: f32) -> f32 {
    (weight * inverse(scale)).round() * scale
}

impl Head {
    /// Computes the exact logit of a token. The states have been prepared.
    #[inline(always)]
    pub(super) fn token_logit<S: Simd>(&self, room: &Room, row: usize, token: usize) -> f32 {
        let width = self.norm.weight.len();
        match &self.rest {
            Rest::Fine(_) => self.rows.dot_row::<S>(token, &room.normed[row * width..][..width]),
            Rest::Int8 => {
                let (integers, scale) = (&room.integers[row * width..][..width], self.screen.scales[token]);
                let sum = self.rows.dot_rounded(token, inverse(scale), integers);
                sum as f32 * (scale * room.scales[row])
            }
        }
    }

    /// Computes the logits of all tokens of the checkpoint's head: [vocab_size]
    pub(super) fn all_logits(&self, processor: &Processor, x: &[f32], logits: &mut [f32]) {
        let count = logits.len();
        let bounds = bounds(count, 1, processor.team.threads());
        processor.team.each(&mut Columns::split(logits, count, &bounds), |part, _| {
            let head = self;
            with_simd!(processor.set, logits_part(head: &Head, x: &[f32], part: &mut Columns<'_>));
        });
    }
}

#[inline(always)]
fn logits_part<S: Simd>(head: &Head, x: &[f32], part: &mut Columns<'_>) {
    let first = part.range.start;
    for (index, logit) in part.row(0).iter_mut().enumerate() {
        *logit = head.rows.dot_row::<S>(first + index, x);
    }
}

/// The exact tokens of a panel.
pub(super) fn tokens_of(panel: usize, vocab_size: usize) -> std::ops::Range<usize> {
    panel * PANEL..((panel + 1) * PANEL).min(vocab_size)
}
