//! The exact head: logits of single tokens, and 8 more bits for those whose 8-bit logits do not suffice.

use std::sync::Arc;

use super::screen::{Bounds, Row, rounding};
use super::{Head, Room};
use crate::blocks::{BLOCK, Blocks};
use crate::int8::{Int8Panels, inverse};
use crate::linear::Processor;
use crate::panels::PANEL;
use crate::simd::{Simd, with_simd};
use crate::team::{Columns, bounds};
use crate::weights::Stored;

/// The weights of a head.
pub(super) enum Kind {
    /// Those of the checkpoint.
    Fine(Fine),
    /// 8 bits, and more of the inputs than screening reads.
    Int8(Int8),
    /// Blocks of the checkpoint, and inputs in blocks.
    Blocks(Arc<Blocks>),
}

/// The head of the checkpoint, the same in 8 bits, and what is left of each weight then, in 8 bits of its
/// own.
pub(super) struct Fine {
    rows: Stored,
    pub(super) screen: Int8Panels,
    pub(super) rest: Int8Panels,
    /// Bounds on what both together leave.
    bounds: Bounds,
}

/// A head of 8 bits.
pub(super) struct Int8 {
    /// As in the checkpoint, which is rounded again where it is read.
    rows: Stored,
    pub(super) screen: Int8Panels,
}

impl Fine {
    /// Rounds a head, and finds the bounds on the errors of its 8-bit version.
    pub(super) fn new(rows: Stored) -> (Self, Bounds) {
        let screen = Int8Panels::pack(rows.rows(), rows.columns(), |row, to| rows.read_row(row, to));
        let rest = Int8Panels::pack(rows.rows(), rows.columns(), |token, to| {
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
                let left = weight - rounded(weight, screen.scales[token]);
                *approximation += f64::from(rounded(left, rest.scales[token]));
            }
            fine_bounds.add(token, &row, &approximation);
        }
        (Fine { rows, screen, rest, bounds: fine_bounds }, bounds)
    }

    /// Computes the logits of all tokens of the checkpoint's head: [vocab_size]
    pub(super) fn all_logits(&self, processor: &Processor, x: &[f32], logits: &mut [f32]) {
        let count = logits.len();
        let bounds = bounds(count, 1, processor.team.threads());
        processor.team.each(&mut Columns::split(logits, count, &bounds), |part, _| {
            let rows = &self.rows;
            with_simd!(processor.set, logits_part(rows: &Stored, x: &[f32], part: &mut Columns<'_>));
        });
    }

    /// How far logits of a panel may be off if both the weights and the state have 8 bits and 8 more, but for
    /// the product of what the latter stand for. `rest` is the length of what is left of the state then.
    #[inline(always)]
    pub(super) fn bound(&self, coarse: &Bounds, panel: usize, row: &Row, rest: f32) -> f32 {
        let (residual, length) = (self.bounds.residual[panel], self.bounds.length[panel]);
        let both = (coarse.residual[panel] + residual) * (row.residual + rest);
        let rounding = rounding(self.rest.panels.padded_inputs()) * (residual + length) * row.length;
        (residual * row.length + length * rest + both) * 1.001 + rounding
    }
}

impl Int8 {
    /// Rounds a head, and finds the bounds on the errors of a product with rounded inputs.
    pub(super) fn new(rows: Stored) -> (Self, Bounds) {
        let screen = Int8Panels::pack(rows.rows(), rows.columns(), |row, to| rows.read_row(row, to));
        let mut bounds = Bounds::new(screen.panels.len());
        let mut row = vec![0.0; rows.columns()];
        for token in 0..rows.rows() {
            rows.read_row(token, &mut row);
            row.iter_mut().for_each(|weight| *weight = rounded(*weight, screen.scales[token]));
            let approximation: Vec<f64> = row.iter().map(|&weight| f64::from(weight)).collect();
            bounds.add(token, &row, &approximation);
        }
        (Int8 { rows, screen }, bounds)
    }
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
        match &self.kind {
            Kind::Fine(fine) => fine.rows.dot_row::<S>(token, &room.normed[row * width..][..width]),
            Kind::Int8(Int8 { rows, screen }) => {
                let (integers, scale) = (&room.integers[row * width..][..width], screen.scales[token]);
                let sum = rows.dot_rounded(token, inverse(scale), integers);
                sum as f32 * (scale * room.scales[row])
            }
            Kind::Blocks(blocks) => {
                let inputs = &room.blocks[row * width / BLOCK..][..width / BLOCK];
                let (panel, mut logit) = (token / PANEL, 0.0);
                let keep = &mut |_: usize, _: usize, sums: &[f32; PANEL]| logit = sums[token % PANEL];
                blocks.product(S::SET, panel..panel + 1, inputs, keep);
                logit
            }
        }
    }
}

#[inline(always)]
fn logits_part<S: Simd>(rows: &Stored, x: &[f32], part: &mut Columns<'_>) {
    let first = part.range.start;
    for (index, logit) in part.row(0).iter_mut().enumerate() {
        *logit = rows.dot_row::<S>(first + index, x);
    }
}

/// The exact tokens of a panel.
pub(super) fn tokens_of(panel: usize, vocab_size: usize) -> std::ops::Range<usize> {
    panel * PANEL..((panel + 1) * PANEL).min(vocab_size)
}
