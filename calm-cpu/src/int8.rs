//! Weights and inputs as integers of 8 bits.
//!
//! A product in 8 bits has inputs of 15 bits: a high half of 8 bits, in steps of 128, and a low one, each of
//! which is a row of inputs to the panels. Screening makes do with inputs of 8 bits.

use std::ops::Range;

use crate::elementwise::{ROUND, larger, largest_of};
use crate::panels::{PANEL, Panels, Weight};
use crate::simd::{LANES, Simd};

/// Size of a step of the high half of an input.
const HIGH_STEP: i16 = 128;

/// The largest input of 15 bits: 127 high steps, and the low half from -64 to 63.
pub(crate) const LARGEST_INPUT: i32 = 127 * HIGH_STEP as i32 + HIGH_STEP as i32 / 2 - 1;

/// Weights in 255 steps.
pub(crate) struct Int8Panels {
    pub(crate) panels: Panels<i8>,
    /// Size of a step of each output, filled up to whole panels.
    pub(crate) scales: Vec<f32>,
}

impl Int8Panels {
    /// Weights whose rows `read_row` writes.
    pub(crate) fn pack(outputs: usize, inputs: usize, mut read_row: impl FnMut(usize, &mut [f32])) -> Self {
        let mut row = vec![0.0; inputs];
        let mut scales = vec![0.0; outputs.next_multiple_of(PANEL)];
        let mut factor = 0.0;
        let panels = Panels::pack(outputs, inputs, |output, input| {
            if input == 0 {
                read_row(output, &mut row);
                scales[output] = largest_size(&row) / 127.0;
                factor = inverse(scales[output]);
            }
            (row[input] * factor).round() as i8
        });
        Int8Panels { panels, scales }
    }

    /// Computes products of the panels in `range` with rows of 15 bits, which [`halve`] made and whose steps
    /// have the sizes `input_scales`. Calls `emit(panel, row, sums)`, for any row panel after panel.
    #[inline(always)]
    pub(crate) fn product<S: Simd>(
        &self,
        range: Range<usize>,
        halves: &[i8],
        input_scales: &[f32],
        mut emit: impl FnMut(usize, usize, &[f32; PANEL]),
    ) {
        let mut total = [0; PANEL];
        self.panels.product::<S>(
            range,
            halves,
            #[inline(always)]
            |panel, index, sums| {
                // The high half may be rounded up beyond what 32 bits hold, which the low half takes back.
                if index % 2 == 0 {
                    for i in 0..PANEL {
                        total[i] = sums[i].wrapping_mul(i32::from(HIGH_STEP));
                    }
                } else {
                    for i in 0..PANEL {
                        total[i] = total[i].wrapping_add(sums[i]);
                    }
                    emit(panel, index / 2, &self.scaled(panel, &total, input_scales[index / 2]));
                }
            },
        );
    }

    /// Sums of integers as the numbers that they stand for.
    #[inline(always)]
    pub(crate) fn scaled(&self, panel: usize, sums: &[i32; PANEL], input_scale: f32) -> [f32; PANEL] {
        let scales = &self.scales[panel * PANEL..][..PANEL];
        let mut scaled = [0.0; PANEL];
        for i in 0..PANEL {
            scaled[i] = sums[i] as f32 * (scales[i] * input_scale);
        }
        scaled
    }
}

/// Rounds rows [rows, width] to integers of at most 15 bits, each row with its scale. The integers are small
/// enough that no sum of their products with 8-bit weights overflows.
#[inline(always)]
pub(crate) fn quantise(input: &[f32], width: usize, quantised: &mut Vec<i16>, scales: &mut Vec<f32>) {
    let largest_integer = (i32::MAX / (127 * width as i32)).min(LARGEST_INPUT) as f32;
    quantised.resize(input.len(), 0);
    scales.clear();
    for (x, to) in input.chunks_exact(width).zip(quantised.chunks_exact_mut(width)) {
        let largest = largest_size(x);
        let scale = if largest == 0.0 { 1.0 } else { largest / largest_integer };
        let factor = 1.0 / scale;
        let are_numbers = round(x, factor, to);
        scales.push(if are_numbers { scale } else { f32::NAN });
    }
}

/// Rounds numbers times `factor` to integers of at most 15 bits. Returns whether all are finite numbers,
/// which the integers would hide.
#[inline(always)]
pub(crate) fn round(x: &[f32], factor: f32, to: &mut [i16]) -> bool {
    let mut all = 0;
    for (to, &x) in to.iter_mut().zip(x) {
        // A cast of the rounded number would be checked, number by number.
        let rounded = (x * factor + ROUND).to_bits();
        all |= rounded;
        *to = rounded as i16;
    }
    // What is no number has more bits of the exponent than a sum with ROUND has.
    all & f32::INFINITY.to_bits() == ROUND.to_bits() & f32::INFINITY.to_bits()
}

/// Divides each row of integers [rows, width] into its halves, as a product reads them: [2 * rows, stride].
#[inline(always)]
pub(crate) fn halve(quantised: &[i16], width: usize, stride: usize, halves: &mut Vec<i8>) {
    let rows = quantised.len() / width;
    halves.resize(2 * rows * stride, 0);
    for (x, to) in quantised.chunks_exact(width).zip(halves.chunks_exact_mut(2 * stride)) {
        let (high, low) = to.split_at_mut(stride);
        let (high_lead, high) = high.split_at_mut(<i8 as Weight>::LEAD);
        let (low_lead, low) = low.split_at_mut(<i8 as Weight>::LEAD);
        let (whole, rest) = x.as_chunks::<LANES>();
        let at_rest = whole.len() * LANES;
        let to = high.as_chunks_mut::<LANES>().0.iter_mut().zip(low.as_chunks_mut::<LANES>().0);
        for (x, (high, low)) in whole.iter().zip(to) {
            for i in 0..LANES {
                (high[i], low[i]) = halves_of(x[i]);
            }
        }
        for ((&x, high), low) in rest.iter().zip(&mut high[at_rest..]).zip(&mut low[at_rest..]) {
            (*high, *low) = halves_of(x);
        }
        // What fills a row up.
        high[width..].fill(0);
        low[width..].fill(0);
        lead(high, high_lead);
        lead(low, low_lead);
    }
}

#[inline(always)]
pub(crate) fn halves_of(x: i16) -> (i8, i8) {
    let steps = (x + HIGH_STEP / 2) >> HIGH_STEP.ilog2();
    (steps as i8, (x - steps * HIGH_STEP) as i8)
}

/// Writes the sum of a row of inputs in front of it.
#[inline(always)]
pub(crate) fn lead(inputs: &[i8], lead: &mut [i8]) {
    let mut total = 0;
    for &input in inputs {
        total += i32::from(input);
    }
    for (to, byte) in lead.iter_mut().zip(total.to_ne_bytes()) {
        *to = byte as i8;
    }
}

#[inline(always)]
pub(crate) fn largest_size(x: &[f32]) -> f32 {
    let mut largest = [0.0_f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(0.0_f32, |largest, x| larger(largest, x.abs()));
    for chunk in chunks {
        for i in 0..LANES {
            largest[i] = larger(largest[i], chunk[i].abs());
        }
    }
    larger(largest_of(largest), rest)
}

/// 1 / scale, or 0 for the scale of a row of zeros.
pub(crate) fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
}
