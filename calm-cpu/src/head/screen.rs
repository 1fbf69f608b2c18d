//! The 8-bit product with the whole vocabulary, and what it says about the exact logits.

use super::exact::{Fine, Int8, Kind};
use super::{Head, Room};
use crate::blocks::{BLOCK, InputBlock, round_to_blocks};
use crate::elementwise::{ROUND, dot, larger, smaller, sum};
use crate::int8::{halve, largest_size, lead, quantise};
use crate::linear::{Processor, normalise};
use crate::panels::{PANEL, Weight};
use crate::simd::{LANES, Simd, with_simd};
use crate::states::States;
use crate::team::{Columns, bounds};

/// Numbers of a state's two best lower bounds that lie one beside the other.
const LOWER: usize = 2 * LANES;

/// What is known of one state.
#[derive(Clone, Copy, Default)]
pub(super) struct Row {
    /// Size of a step of its 8-bit version.
    pub(super) scale: f32,
    /// Length of the state.
    pub(super) length: f32,
    /// The length of the rest that the 8-bit version leaves.
    pub(super) residual: f32,
    /// What the two bounds of a panel are multiplied with.
    factors: [f32; 2],
    /// The best and the second best logit are at least so large.
    pub(super) least: [f32; 2],
}

/// Bounds on the errors of all logits of a panel.
pub(super) struct Bounds {
    /// The largest distance of a row from its approximation, for each panel.
    pub(super) residual: Vec<f32>,
    /// The largest length of an approximation of a row, for each panel.
    pub(super) length: Vec<f32>,
}

impl Bounds {
    pub(super) fn new(panels: usize) -> Self {
        Bounds { residual: vec![0.0; panels], length: vec![0.0; panels] }
    }

    /// Takes in a row, for which `approximation` stands.
    pub(super) fn add(&mut self, token: usize, row: &[f32], approximation: &[f64]) {
        let pairs = || row.iter().zip(approximation);
        let residual = pairs().map(|(&w, a)| (f64::from(w) - a).powi(2)).sum::<f64>().sqrt() as f32;
        let length = approximation.iter().map(|a| a * a).sum::<f64>().sqrt() as f32;
        let panel = token / PANEL;
        self.residual[panel] = self.residual[panel].max(residual);
        self.length[panel] = self.length[panel].max(length);
    }

    /// How far the logits of a panel may be off.
    #[inline(always)]
    pub(super) fn of(&self, panel: usize, row: &Row) -> f32 {
        let [of_residual, of_length] = row.factors;
        self.residual[panel] * of_residual + self.length[panel] * of_length
    }
}

/// The error of f32 sums of `width` products in 16 parts, as a part of |w| |x|, twice.
pub(super) fn rounding(width: usize) -> f32 {
    (width as f32 / LANES as f32 + 8.0) * f32::EPSILON
}

impl Row {
    /// Knows the length of x and that of the rest of its approximation.
    fn new(scale: f32, length: f32, residual: f32, width: usize) -> Self {
        let residual = residual * 1.001 + f32::EPSILON * length;
        let rounding = rounding(width) * length;
        let factors = [length * 1.001 + rounding, residual * 1.001 + rounding];
        Row { scale, length, residual, factors, least: [f32::NEG_INFINITY; 2] }
    }
}

/// Rounds x to integers from -127 to 127, with what a product reads in front of them, and returns the size of
/// their steps and the length of the rest.
#[inline(always)]
pub(super) fn narrow(x: &[f32], to: &mut [i8]) -> (f32, f32) {
    let largest = largest_size(x);
    let scale = if largest == 0.0 { 1.0 } else { largest / 127.0 };
    let factor = 1.0 / scale;
    let (of_lead, integers) = to.split_at_mut(<i8 as Weight>::LEAD);
    let mut squares = [0.0; LANES];
    let (chunks, to_chunks) = (x.chunks_exact(LANES), integers.chunks_exact_mut(LANES));
    let whole = x.len() / LANES * LANES;
    for (x, to) in chunks.zip(to_chunks) {
        for i in 0..LANES {
            let shifted = x[i] * factor + ROUND;
            to[i] = shifted.to_bits() as i8;
            let rest = x[i] - (shifted - ROUND) * scale;
            squares[i] += rest * rest;
        }
    }
    for (x, to) in x[whole..].iter().zip(&mut integers[whole..]) {
        let shifted = x * factor + ROUND;
        *to = shifted.to_bits() as i8;
        squares[0] += (x - (shifted - ROUND) * scale).powi(2);
    }
    lead(integers, of_lead);
    (scale, sum(&squares).sqrt())
}

/// Some columns of the logits, and the two best lower bounds among them.
struct Part<'a> {
    columns: Columns<'a>,
    /// For each row the best and then the second best of sixteen parts: [rows, 2, LANES]
    lower: &'a mut [f32],
}

impl Head {
    /// Normalises and rounds states. If only exact logits are read, there is less to know of them.
    pub(super) fn prepare(&self, processor: &Processor, states: &States<'_>, exactly: bool, room: &mut Room) {
        let head = self;
        with_simd!(processor.set, prepare(
            head: &Head, states: &States<'_>, exactly: bool, room: &mut Room
        ));
    }

    /// Computes the 8-bit logits of some states. If the 8-bit head is the head and they are to be exact, they
    /// are; those of blocks always are.
    pub(super) fn screen(&self, processor: &Processor, states: &States<'_>, exactly: bool, room: &mut Room) {
        self.prepare(processor, states, exactly, room);
        let (rows, padded) = (states.len(), self.panels() * PANEL);
        let Room { logits, lower, narrow, scales, blocks, rows: known, .. } = room;
        logits.resize(rows * padded, 0.0);
        let bounds = bounds(padded, PANEL, processor.team.threads());
        let parts = bounds.len() - 1;
        lower.clear();
        lower.resize(parts * rows * LOWER, f32::NEG_INFINITY);
        let mut parts: Vec<Part<'_>> = Columns::split(logits, padded, &bounds)
            .into_iter()
            .zip(lower.chunks_exact_mut(rows * LOWER))
            .map(|(columns, lower)| Part { columns, lower })
            .collect();
        let inputs = Inputs { narrow, scales, blocks, rows: known, exactly };
        processor.team.each(&mut parts, |part, _| {
            let (head, inputs) = (self, &inputs);
            with_simd!(processor.set, screen_part(head: &Head, inputs: &Inputs<'_>, part: &mut Part<'_>));
        });
        drop(parts);
        for (row, known) in known.iter_mut().enumerate() {
            for of_part in lower.chunks_exact(rows * LOWER) {
                for &bound in &of_part[row * LOWER..][..LOWER] {
                    insert(&mut known.least, bound);
                }
            }
        }
    }
}

/// Rounded states.
struct Inputs<'a> {
    narrow: &'a [i8],
    /// Size of the steps of 15-bit versions.
    scales: &'a [f32],
    blocks: &'a [InputBlock],
    rows: &'a [Row],
    exactly: bool,
}

/// Normalises and rounds the states.
#[inline(always)]
fn prepare<S: Simd>(head: &Head, states: &States<'_>, exactly: bool, room: &mut Room) {
    let width = states.width();
    normalise(&head.norm, states, &mut room.normed);
    room.rows.clear();
    let no_bounds = |scale| Row { scale, least: [f32::NEG_INFINITY; 2], ..Row::default() };
    let stride = match &head.kind {
        Kind::Fine(Fine { screen, .. }) => screen.panels.stride(),
        Kind::Int8(Int8 { screen, .. }) => {
            quantise(&room.normed, width, &mut room.integers, &mut room.scales);
            // The head is defined on these numbers.
            let integers = room.integers.chunks_exact(width).zip(&room.scales);
            for (x, (integers, scale)) in room.normed.chunks_exact_mut(width).zip(integers) {
                for (x, &integer) in x.iter_mut().zip(integers) {
                    *x = f32::from(integer) * scale;
                }
            }
            if exactly {
                halve(&room.integers, width, screen.panels.stride(), &mut room.narrow);
                room.rows.extend(room.scales.iter().map(|&scale| no_bounds(scale)));
                return;
            }
            screen.panels.stride()
        }
        Kind::Blocks(_) => {
            room.blocks.resize(room.normed.len() / BLOCK, InputBlock::default());
            round_to_blocks(&room.normed, &mut room.blocks);
            room.rows.resize(states.len(), no_bounds(1.0));
            return;
        }
    };
    room.narrow.resize(states.len() * stride, 0);
    for (x, to) in room.normed.chunks_exact(width).zip(room.narrow.chunks_exact_mut(stride)) {
        let (scale, residual) = narrow(x, to);
        room.rows.push(Row::new(scale, dot(x, x).sqrt(), residual, width));
    }
}

#[inline(always)]
fn screen_part<S: Simd>(head: &Head, inputs: &Inputs<'_>, part: &mut Part<'_>) {
    let range = part.columns.range.start / PANEL..part.columns.range.end / PANEL;
    let first = range.start;
    let Inputs { narrow, scales, blocks, rows, exactly } = *inputs;
    match &head.kind {
        Kind::Int8(Int8 { screen, .. }) if exactly => screen.product::<S>(
            range,
            narrow,
            scales,
            #[inline(always)]
            |panel, index, logits| part.take(head, first, panel, index, rows, *logits),
        ),
        Kind::Fine(Fine { screen, .. }) | Kind::Int8(Int8 { screen, .. }) => screen.panels.product::<S>(
            range,
            narrow,
            #[inline(always)]
            |panel, index, sums| {
                let logits = screen.scaled(panel, sums, rows[index].scale);
                part.take(head, first, panel, index, rows, logits);
            },
        ),
        Kind::Blocks(weights) => {
            let mut take = |panel: usize, index: usize, logits: &[f32; PANEL]| {
                part.take(head, first, panel, index, rows, *logits);
            };
            weights.product(S::SET, range, blocks, &mut take);
        }
    }
}

impl Part<'_> {
    /// Takes in the logits of a panel, of which `first` is the part's first one.
    #[inline(always)]
    fn take(
        &mut self,
        head: &Head,
        first: usize,
        panel: usize,
        index: usize,
        rows: &[Row],
        mut logits: [f32; PANEL],
    ) {
        let tokens = head.vocab_size() - panel * PANEL;
        if tokens < PANEL {
            logits[tokens..].fill(f32::NEG_INFINITY);
        }
        self.columns.row(index)[(panel - first) * PANEL..][..PANEL].copy_from_slice(&logits);
        let bound = head.bounds.of(panel, &rows[index]);
        let (best, second) = self.lower[index * LOWER..][..LOWER].split_at_mut(LANES);
        for i in 0..LANES {
            let (a, b) = (logits[i] - bound, logits[i + LANES] - bound);
            let (large, small) = (larger(a, b), smaller(a, b));
            second[i] = larger(larger(second[i], small), smaller(best[i], large));
            best[i] = larger(best[i], large);
        }
    }
}

/// Inserts a number into the two largest, which are in descending order.
#[inline(always)]
pub(super) fn insert(largest: &mut [f32; 2], x: f32) {
    if x > largest[0] {
        *largest = [x, largest[0]];
    } else if x > largest[1] {
        largest[1] = x;
    }
}
