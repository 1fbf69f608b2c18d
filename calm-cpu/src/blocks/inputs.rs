//! Inputs in blocks of 8 bits.

use half::f16;

use super::BLOCK;
use crate::elementwise::ROUND;
use crate::int8::largest_size;

/// 32 inputs in 255 steps: those that llama.cpp multiplies with (`block_q8_0`, `block_q8_1` of
/// ggml-common.h), so that the outputs of both are comparable.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct InputBlock {
    /// Size of a step.
    pub(super) scale: f32,
    /// What minima are multiplied with: the sum of the inputs.
    pub(super) scaled_sum: f32,
    /// Sums of the quants in each half.
    pub(super) sums: [i32; 2],
    pub(super) quants: [i8; BLOCK],
}

/// Rounds rows of inputs, whose length is a multiple of [`BLOCK`]: [rows, width] -> [rows, blocks]
#[inline(always)]
pub(crate) fn round_to_blocks(inputs: &[f32], blocks: &mut Vec<InputBlock>) {
    blocks.resize(inputs.len() / BLOCK, InputBlock::default());
    for (x, block) in inputs.chunks_exact(BLOCK).zip(blocks.iter_mut()) {
        let largest = largest_size(x);
        let factor = if largest == 0.0 { 0.0 } else { 127.0 / largest };
        let mut sums = [0; 2];
        let mut all = 0;
        for (half, sum) in sums.iter_mut().enumerate() {
            let first = half * BLOCK / 2;
            for i in first..first + BLOCK / 2 {
                let rounded = (x[i] * factor + ROUND).to_bits();
                all |= rounded;
                block.quants[i] = rounded as i8;
                *sum += i32::from(rounded as i8);
            }
        }
        block.sums = sums;
        // What is no number has more bits of the exponent than a sum with ROUND has; integers would hide it.
        let is_lost = all & f32::INFINITY.to_bits() != ROUND.to_bits() & f32::INFINITY.to_bits();
        let step = if is_lost { f32::NAN } else { largest / 127.0 };
        block.scale = as_f16(step);
        block.scaled_sum = as_f16(step * (sums[0] + sums[1]) as f32);
    }
}

/// The number as a block of a file holds it, if it can.
fn as_f16(x: f32) -> f32 {
    let rounded = f16::from_f32(x).to_f32();
    if rounded.is_infinite() { x } else { rounded }
}
