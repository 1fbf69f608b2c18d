//! Inputs in blocks of 15 bits.

use super::BLOCK;
use crate::int8::{LARGEST_INPUT, halves_of, largest_size, round};

/// 32 inputs as integers of 15 bits, in the two halves of 8 bits that products take.
///
/// llama.cpp has inputs of 8 bits (`block_q8_1` of ggml-common.h). A layer that rounds so coarsely makes of
/// any small difference one as large as its steps, so that after some layers the texts of two machines, or
/// of two types of caches, have no more in common than both have with those of the unrounded network. 15
/// bits cost little where weights come from memory, and give the texts of that network.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct InputBlock {
    /// Size of a step.
    pub(super) scale: f32,
    /// The sum of the inputs, which minima are multiplied with.
    pub(super) scaled_sum: f32,
    /// Sums of the integers in the first and in the second half of the block.
    pub(super) sums: [i32; 2],
    /// The integers in steps of 128, rounded.
    pub(super) high: Quants,
    /// What is left of them.
    pub(super) low: Quants,
}

/// On 4 bytes, which products read together.
#[derive(Clone, Copy, Default)]
#[repr(C, align(4))]
pub(super) struct Quants(pub(super) [i8; BLOCK]);

/// Rounds rows of inputs, whose length is a multiple of [`BLOCK`]: [rows, width] -> [rows, blocks]
#[inline(always)]
pub(crate) fn round_to_blocks(inputs: &[f32], blocks: &mut [InputBlock]) {
    for (x, block) in inputs.as_chunks::<BLOCK>().0.iter().zip(blocks) {
        let largest = largest_size(x);
        let factor = if largest == 0.0 { 0.0 } else { LARGEST_INPUT as f32 / largest };
        let mut integers = [0_i16; BLOCK];
        let are_numbers = round(x, factor, &mut integers);
        for ((high, low), &integer) in block.high.0.iter_mut().zip(&mut block.low.0).zip(&integers) {
            (*high, *low) = halves_of(integer);
        }
        block.sums = [sum_of_half(&integers, 0), sum_of_half(&integers, 1)];
        block.scale = if are_numbers { largest / LARGEST_INPUT as f32 } else { f32::NAN };
        block.scaled_sum = block.scale * (block.sums[0] + block.sums[1]) as f32;
    }
}

/// The sum of the integers of half a block, added pairwise: one after the other takes longer than rounding.
#[inline(always)]
fn sum_of_half(integers: &[i16; BLOCK], half: usize) -> i32 {
    let mut sums = [0_i32; BLOCK / 4];
    for (i, sum) in sums.iter_mut().enumerate() {
        let at = half * BLOCK / 2 + i;
        *sum = i32::from(integers[at]) + i32::from(integers[at + BLOCK / 4]);
    }
    let mut width = BLOCK / 8;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0]
}
