//! How blocks lie in panels, and how they are multiplied.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use half::f16;

use super::inputs::InputBlock;
use super::{BLOCK, StoredBlock};
use crate::panels::{PANEL, Weight};
use crate::simd::{LANES, Simd};

/// What a block consists of. A weight is `scale * (quant - ZERO) + minimum`.
pub(crate) trait Format: Send + Sync + 'static {
    /// Bits of a quant: 4, or 5, which have no sign, or 8 with one.
    const BITS: usize;
    /// What 0 is stored as.
    const ZERO: i32 = 0;
    const HAS_MINIMUM: bool = false;
    /// Scales of a block: one, or one for each half of it.
    const SCALES: usize = 1;
    /// Whether scales and minima are products, which f16 does not hold.
    const HAS_WIDE_SCALES: bool = false;
}

macro_rules! formats {
    ($($name:ident { $($constant:ident: $type:ty = $value:expr),* })*) => {
        $(
            /// A format of GGUF of this name.
            pub(crate) struct $name;

            impl Format for $name {
                $(const $constant: $type = $value;)*
            }
        )*
    };
}

formats! {
    Q4_0 { BITS: usize = 4, ZERO: i32 = 8 }
    Q4_1 { BITS: usize = 4, HAS_MINIMUM: bool = true }
    Q5_0 { BITS: usize = 5, ZERO: i32 = 16 }
    Q5_1 { BITS: usize = 5, HAS_MINIMUM: bool = true }
    Q8_0 { BITS: usize = 8 }
    Q4K { BITS: usize = 4, HAS_MINIMUM: bool = true, HAS_WIDE_SCALES: bool = true }
    Q5K { BITS: usize = 5, HAS_MINIMUM: bool = true, HAS_WIDE_SCALES: bool = true }
    Q6K { BITS: usize = 8, SCALES: usize = 2, HAS_WIDE_SCALES: bool = true }
}

/// The weights of a format in panels.
pub(crate) struct Block<F>(PhantomData<F>);

/// Number of four inputs of a block that lie one beside the other.
const QUADS: usize = BLOCK / 4;

/// Bytes of the four inputs of 16 outputs.
const QUAD_BYTES: usize = 4 * LANES;

/// Where in a step the parts of a panel's blocks begin.
struct Layout<F>(PhantomData<F>);

impl<F: Format> Layout<F> {
    /// The quants of 16 outputs, of which the fifth bits lie elsewhere.
    const QUANTS: usize = LANES * BLOCK * (if F::BITS == 8 { 8 } else { 4 }) / 8;
    const FIFTH_BITS: usize = 2 * Self::QUANTS;
    const SCALES: usize = PANEL * BLOCK * F::BITS / 8;
    const SCALE_BYTES: usize = if F::HAS_WIDE_SCALES { 4 } else { 2 };
    const MINIMA: usize = Self::SCALES + F::SCALES * PANEL * Self::SCALE_BYTES;
    const BYTES: usize = Self::MINIMA + F::HAS_MINIMUM as usize * PANEL * Self::SCALE_BYTES;

    /// Where a scale of an output is, or, as that after the last one, its minimum.
    fn scale(index: usize, output: usize) -> usize {
        Self::SCALES + (index * PANEL + output) * Self::SCALE_BYTES
    }

    /// Where the quant of an input is.
    fn quant(output: usize, input: usize) -> usize {
        let (half, lane) = (output / LANES, output % LANES);
        half * Self::QUANTS + input / 4 * QUAD_BYTES + lane * 4 + input % 4
    }

    /// The byte and the bit that is the fifth one of an input.
    fn fifth_bit(output: usize, input: usize) -> (usize, usize) {
        let (half, lane) = (output / LANES, output % LANES);
        let bit = input / 4 * QUAD_BYTES + lane * 4 + input % 4;
        (Self::FIFTH_BITS + half * LANES * BLOCK / 8 + bit / 8, bit % 8)
    }
}

/// Writes what an output of a panel has in a step.
pub(super) fn write<F: Format>(step: &mut [u8], output: usize, block: &StoredBlock) {
    for (input, &quant) in block.quants.iter().enumerate() {
        if F::BITS == 8 {
            step[Layout::<F>::quant(output, input)] = quant as u8;
            continue;
        }
        // The second half of the inputs is in the upper bits of the first.
        let shift = input / (BLOCK / 2) * 4;
        step[Layout::<F>::quant(output, input % (BLOCK / 2))] |= (quant as u8 & 15) << shift;
        if F::BITS == 5 {
            let (byte, bit) = Layout::<F>::fifth_bit(output, input);
            step[byte] |= (quant as u8 >> 4) << bit;
        }
    }
    for (index, scale) in block.scales[..F::SCALES].iter().copied().chain(block.minimum).enumerate() {
        let to = &mut step[Layout::<F>::scale(index, output)..][..Layout::<F>::SCALE_BYTES];
        if F::HAS_WIDE_SCALES {
            to.copy_from_slice(&scale.to_ne_bytes());
        } else {
            to.copy_from_slice(&f16::from_f32(scale).to_ne_bytes());
        }
    }
}

/// Reads what [`write`] has written.
pub(super) fn read<F: Format>(step: &[u8], output: usize) -> StoredBlock {
    let quant = |input: usize| {
        if F::BITS == 8 {
            return step[Layout::<F>::quant(output, input)] as i8;
        }
        let shift = input / (BLOCK / 2) * 4;
        let low = step[Layout::<F>::quant(output, input % (BLOCK / 2))] >> shift & 15;
        if F::BITS == 4 {
            return low as i8;
        }
        let (byte, bit) = Layout::<F>::fifth_bit(output, input);
        (low | (step[byte] >> bit & 1) << 4) as i8
    };
    let scale = |index: usize| {
        let from = &step[Layout::<F>::scale(index, output)..];
        match F::HAS_WIDE_SCALES {
            true => f32::from_ne_bytes([from[0], from[1], from[2], from[3]]),
            false => f16::from_ne_bytes([from[0], from[1]]).to_f32(),
        }
    };
    StoredBlock {
        quants: std::array::from_fn(quant),
        zero: F::ZERO as i8,
        scales: [scale(0), scale(F::SCALES - 1)],
        minimum: F::HAS_MINIMUM.then(|| scale(F::SCALES)),
    }
}

/// The blocks of 16 outputs.
#[derive(Clone, Copy)]
pub(crate) struct Loaded<S: Simd> {
    quads: [S::Quads; QUADS],
    scales: [S::F32; 2],
    minima: S::F32,
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "what has to hold is said once, at `Simd`")]
impl<F: Format> Weight for Block<F> {
    type Input = InputBlock;
    type Output = f32;
    const DEPTH: usize = BLOCK;
    const STEP_INPUTS: usize = 1;
    const STEP_BYTES: usize = Layout::<F>::BYTES;
    type Loaded<S: Simd> = Loaded<S>;
    type Splat<S: Simd> = *const InputBlock;
    type Sum<S: Simd> = S::F32;

    #[inline(always)]
    unsafe fn start<S: Simd>(_from: *const InputBlock) -> S::F32 {
        unsafe { S::splat(0.0) }
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(step: *const u8, half: usize) -> Loaded<S> {
        unsafe {
            let quants = step.add(half * Layout::<F>::QUANTS);
            // Plain loops: closures may stay outside of the kernel, without its instructions.
            let mut quads = [S::load_quads(quants.cast()); QUADS];
            if F::BITS == 8 {
                for (quad, to) in quads.iter_mut().enumerate() {
                    *to = S::load_quads(quants.add(quad * QUAD_BYTES).cast());
                }
            } else {
                for quad in 0..QUADS / 2 {
                    let [first, second] = S::load_nibbles(quants.add(quad * QUAD_BYTES));
                    (quads[quad], quads[quad + QUADS / 2]) = (first, second);
                }
            }
            if F::BITS == 5 {
                let fifth = step.add(Layout::<F>::FIFTH_BITS + half * LANES * BLOCK / 8);
                for (quad, four_bits) in quads.iter_mut().enumerate() {
                    *four_bits = S::add_fifth_bits(*four_bits, fifth.add(quad * QUAD_BYTES / 8));
                }
            }
            let scale = |index: usize| {
                let from =
                    step.add(Layout::<F>::SCALES + (index * PANEL + half * LANES) * Layout::<F>::SCALE_BYTES);
                if F::HAS_WIDE_SCALES { S::load(from.cast()) } else { S::load_f16(from.cast()) }
            };
            let minima = if F::HAS_MINIMUM { scale(F::SCALES) } else { S::splat(0.0) };
            Loaded { quads, scales: [scale(0), scale(F::SCALES - 1)], minima }
        }
    }

    #[inline(always)]
    unsafe fn splat<S: Simd>(from: *const InputBlock) -> *const InputBlock {
        from
    }

    #[inline(always)]
    unsafe fn add<S: Simd>(weights: Loaded<S>, inputs: *const InputBlock, sum: S::F32) -> S::F32 {
        unsafe {
            let InputBlock { scale, scaled_sum, sums, high, low } = &*inputs;
            let (high, low) = (high.0.as_ptr(), low.0.as_ptr());
            let mut total = sum;
            let quads_of_scale = QUADS / F::SCALES;
            for part in 0..F::SCALES {
                let inputs = if F::SCALES == 1 { sums[0] + sums[1] } else { sums[part] };
                // What the sum of the low halves begins with makes up for the high ones, too.
                let mut of_low = match F::BITS {
                    8 => S::start_quads(inputs),
                    _ => S::splat_i32(-F::ZERO * inputs),
                };
                let mut of_high = S::splat_i32(0);
                for quad in part * quads_of_scale..(part + 1) * quads_of_scale {
                    let weights = weights.quads[quad];
                    let inputs = [high, low].map(|half| S::splat_quad(half.add(4 * quad)));
                    (of_high, of_low) = match F::BITS {
                        8 => (
                            S::dot_quads(weights, inputs[0], of_high),
                            S::dot_quads(weights, inputs[1], of_low),
                        ),
                        _ => (
                            S::dot_unsigned_quads(weights, inputs[0], of_high),
                            S::dot_unsigned_quads(weights, inputs[1], of_low),
                        ),
                    };
                }
                let integers = S::join_halves(of_high, of_low);
                let factor = S::mul(weights.scales[part], S::splat(*scale));
                total = S::mul_add(S::to_f32(integers), factor, total);
            }
            if F::HAS_MINIMUM {
                total = S::mul_add(weights.minima, S::splat(*scaled_sum), total);
            }
            total
        }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut f32, sum: S::F32) {
        unsafe { S::store(to, sum) }
    }
}
