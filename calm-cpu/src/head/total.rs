//! The sum over the vocabulary that a margin divides by, as exact as promised.

use super::exact::{Fine, Kind, tokens_of};
use super::row::Leaders;
use super::screen::narrow;
use super::sums::{panel_sums, sum_of_exponentials};
use super::{Head, MARGIN_ERROR, Room};
use crate::elementwise::exp;
use crate::linear::Processor;
use crate::panels::PANEL;
use crate::simd::{Simd, with_simd};
use crate::team::{Columns, Scratch, bounds};

/// Sums of the exponentials of some rows by panel, and which of them are too far off.
#[derive(Default)]
pub(super) struct Sums {
    /// [rows, panels]
    sums: Vec<f32>,
    /// Whether a panel has to be computed with more bits: [rows, panels]
    off: Vec<bool>,
    /// By how much the sums of a row may be off that have been.
    share: Vec<f32>,
    /// The errors of one row's panels.
    errors: Vec<f32>,
    /// The second 8 bits of the states: [rows, stride]
    low: Vec<i8>,
    /// The size of their steps and the length of what they leave.
    low_scales: Vec<(f32, f32)>,
}

impl Head {
    /// Computes Z, the sum over the vocabulary of e^(logit - best), of each row.
    ///
    /// It is so exact that the margin, lead / Z, is off by at most [`MARGIN_ERROR`].
    pub(super) fn totals(
        &self,
        processor: &Processor,
        room: &mut Room,
        leaders: &[Leaders],
        sums: &mut Sums,
    ) -> Vec<f32> {
        let panels = self.panels();
        let head = self;
        with_simd!(processor.set, coarse_sums(
            head: &Head, room: &Room, leaders: &[Leaders], sums: &mut Sums
        ));
        if let Kind::Fine(fine) = &self.kind
            && sums.off.contains(&true)
        {
            with_simd!(processor.set, narrow_rests(fine: &Fine, room: &Room, sums: &mut Sums));
            let Sums { sums: all, off, low, low_scales, .. } = &mut *sums;
            let bounds = bounds(panels, 1, processor.team.threads());
            let job = Job { head: self, fine, room, leaders, off, low, low_scales };
            processor.team.each(&mut Columns::split(all, panels, &bounds), |part, scratch| {
                let job = &job;
                with_simd!(processor.set, refine_part(
                    job: &Job<'_>, part: &mut Columns<'_>, scratch: &mut Scratch
                ));
            });
            with_simd!(processor.set, correct(
                head: &Head, fine: &Fine, room: &Room, leaders: &[Leaders], sums: &mut Sums
            ));
        }
        sums.sums.chunks_exact(panels).map(|sums| sums.iter().sum()).collect()
    }
}

/// Sums up the exponentials of the 8-bit logits, and finds out which panels need more bits.
#[inline(always)]
fn coarse_sums<S: Simd>(head: &Head, room: &Room, leaders: &[Leaders], all: &mut Sums) {
    let panels = head.panels();
    let Sums { sums, off, share, errors, .. } = all;
    sums.resize(leaders.len() * panels, 0.0);
    off.clear();
    off.resize(leaders.len() * panels, false);
    share.clear();
    errors.resize(panels, 0.0);
    let rows = room.logits.chunks_exact(panels * PANEL).zip(leaders).zip(&room.rows);
    for (index, ((logits, leaders), row)) in rows.enumerate() {
        let sums = &mut sums[index * panels..][..panels];
        panel_sums(logits, leaders.logits[0], sums);
        for panel in leaders.panels() {
            let mut logits = logits.as_chunks().0[panel];
            sums[panel] = leaders.sum(panel, &mut logits);
        }
        let mut least = 0.0;
        for (panel, error) in errors.iter_mut().enumerate() {
            let factor = exp(head.bounds.of(panel, row));
            *error = sums[panel] * (factor - 1.0);
            least += sums[panel] / factor;
        }
        for panel in leaders.panels() {
            errors[panel] *= leaders.uncertain(panel, sums[panel]);
        }
        // An error e of Z changes the margin by lead e / Z^2: the flatter the softmax, the more Z may be off.
        // Half of it is for the panels that stay as they are: the smallest errors.
        let half = MARGIN_ERROR * least * least / leaders.lead.max(f32::MIN_POSITIVE) / 2.0;
        let largest = largest_that_may_stay(errors, half);
        let mut stays = 0.0;
        for error in errors.iter() {
            stays += if *error <= largest { *error } else { 0.0 };
        }
        share.push(2.0 * half - stays);
        for (off, error) in off[index * panels..].iter_mut().zip(errors.iter()) {
            *off = *error > largest;
        }
    }
}

/// Rounds what the 8-bit versions of the states leave.
#[inline(always)]
fn narrow_rests<S: Simd>(fine: &Fine, room: &Room, sums: &mut Sums) {
    let (width, stride) = (room.normed.len() / room.rows.len(), fine.screen.panels.stride());
    let lead = stride - fine.screen.panels.padded_inputs();
    sums.low.resize(room.rows.len() * stride, 0);
    sums.low_scales.clear();
    let mut rest = vec![0.0; width];
    for (index, row) in room.rows.iter().enumerate() {
        let x = &room.normed[index * width..][..width];
        let high = &room.narrow[index * stride + lead..][..width];
        for i in 0..width {
            rest[i] = x[i] - f32::from(high[i]) * row.scale;
        }
        let (scale, residual) = narrow(&rest, &mut sums.low[index * stride..][..stride]);
        sums.low_scales.push((scale, residual * 1.001 + f32::EPSILON * row.length));
    }
}

struct Job<'a> {
    head: &'a Head,
    fine: &'a Fine,
    room: &'a Room,
    leaders: &'a [Leaders],
    off: &'a [bool],
    low: &'a [i8],
    low_scales: &'a [(f32, f32)],
}

/// Computes the sums of the panels that are off with 8 more bits, each for all of its rows at once.
#[inline(always)]
fn refine_part<S: Simd>(job: &Job<'_>, part: &mut Columns<'_>, scratch: &mut Scratch) {
    let Job { head, fine, room, leaders, off, low, low_scales } = job;
    let (panels, stride) = (head.panels(), fine.screen.panels.stride());
    let Scratch { tokens: rows, narrow, scores: logits, .. } = scratch;
    let (first, mut panel) = (part.range.start, part.range.start);
    while panel < part.range.end {
        rows.clear();
        for row in 0..leaders.len() {
            if off[row * panels + panel] {
                rows.push(row);
            }
        }
        // A single row has several panels computed at once, as in other products.
        let start = panel;
        panel += 1;
        while leaders.len() == 1 && panel < part.range.end && off[panel] == off[start] {
            panel += 1;
        }
        if rows.is_empty() {
            continue;
        }
        logits.clear();
        narrow.clear();
        for &row in rows.iter() {
            let stretch = row * panels + start..row * panels + panel;
            logits.extend_from_slice(&room.logits[stretch.start * PANEL..stretch.end * PANEL]);
            narrow.extend_from_slice(&low[row * stride..][..stride]);
        }
        fine.screen.panels.product::<S>(
            start..panel,
            narrow,
            #[inline(always)]
            |panel, index, sums| {
                let scaled = fine.screen.scaled(panel, sums, low_scales[rows[index]].0);
                add(&mut logits[(panel - start + index) * PANEL..], &scaled);
            },
        );
        narrow.clear();
        for &row in rows.iter() {
            narrow.extend_from_slice(&room.narrow[row * stride..][..stride]);
        }
        fine.rest.panels.product::<S>(
            start..panel,
            narrow,
            #[inline(always)]
            |panel, index, sums| {
                let scaled = fine.rest.scaled(panel, sums, room.rows[rows[index]].scale);
                add(&mut logits[(panel - start + index) * PANEL..], &scaled);
            },
        );
        // There are several rows or several panels, never both.
        for (index, logits) in logits.as_chunks_mut().0.iter_mut().enumerate() {
            let (row, panel) = if rows.len() == 1 { (rows[0], start + index) } else { (rows[index], start) };
            part.row(row)[panel - first] = leaders[row].sum(panel, logits);
        }
    }
}

#[inline(always)]
fn add(to: &mut [f32], x: &[f32; PANEL]) {
    for (to, x) in to[..PANEL].iter_mut().zip(x) {
        *to += x;
    }
}

/// Computes the sums of panels exactly for which 8 more bits are not enough.
#[inline(always)]
fn correct<S: Simd>(head: &Head, fine: &Fine, room: &Room, leaders: &[Leaders], all: &mut Sums) {
    let panels = head.panels();
    let Sums { sums, off, share, low_scales, errors, .. } = all;
    for (index, leaders) in leaders.iter().enumerate() {
        let row = &room.rows[index];
        let (sums, off) = (&mut sums[index * panels..][..panels], &off[index * panels..][..panels]);
        for panel in 0..panels {
            let bound = fine.bound(&head.bounds, panel, row, low_scales[index].1);
            errors[panel] = if off[panel] { sums[panel] * (exp(bound) - 1.0) } else { 0.0 };
        }
        for panel in leaders.panels() {
            errors[panel] *= leaders.uncertain(panel, sums[panel]);
        }
        let largest = largest_that_may_stay(errors, share[index]);
        for panel in 0..panels {
            if errors[panel] > largest {
                let mut logits = [f32::NEG_INFINITY; PANEL];
                for (logit, token) in logits.iter_mut().zip(tokens_of(panel, head.vocab_size())) {
                    *logit = head.token_logit::<S>(room, index, token);
                }
                sums[panel] = sum_of_exponentials(&logits, leaders.logits[0]);
            }
        }
    }
}

/// Finds a size so that all errors up to it are no more than `together`.
#[inline(always)]
fn largest_that_may_stay(errors: &[f32], together: f32) -> f32 {
    let mut largest = together;
    // So many halvings make it so small that even all errors of this size are no more.
    for _ in 0..usize::BITS - errors.len().leading_zeros() {
        let mut sum = 0.0;
        for error in errors {
            sum += if *error <= largest { *error } else { 0.0 };
        }
        if sum <= together {
            break;
        }
        largest *= 0.5;
    }
    largest
}

impl Leaders {
    /// The panels of both.
    fn panels(&self) -> impl Iterator<Item = usize> {
        let [best, second] = self.tokens.map(|token| token / PANEL);
        std::iter::once(best).chain((second != best).then_some(second))
    }

    /// What part of a panel's sum is not theirs.
    fn uncertain(&self, panel: usize, sum: f32) -> f32 {
        let terms = [1.0, exp(self.logits[1] - self.logits[0])];
        let theirs = terms.iter().zip(self.tokens).filter(|(_, token)| token / PANEL == panel);
        (1.0 - theirs.map(|(term, _)| term).sum::<f32>() / sum).max(0.0)
    }

    /// Sums up the exponentials of a panel, in which the leaders have their exact logits.
    #[inline(always)]
    fn sum(&self, panel: usize, logits: &mut [f32; PANEL]) -> f32 {
        for (token, logit) in self.tokens.into_iter().zip(self.logits).rev() {
            if token / PANEL == panel {
                logits[token % PANEL] = logit;
            }
        }
        sum_of_exponentials(logits, self.logits[0])
    }
}
