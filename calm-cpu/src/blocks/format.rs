//! How blocks lie in panels, and how they are multiplied.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use half::f16;

use super::inputs::InputBlock;
use super::{BLOCK, StoredBlock};
use crate::panels::{PANEL, Panels, Weight};
use crate::simd::{LANES, Simd, amx};

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

/// Number of rows from which on tiles take less time than vectors, since weights are unpacked for them.
const FEWEST_ROWS: usize = 16;

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
    let scale = |index: usize| scale_at::<F>(step, index, output);
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

/// Loads the scales or minima of 16 outputs.
///
/// # Safety
/// That of [`Simd`].
#[allow(clippy::undocumented_unsafe_blocks, reason = "what has to hold is said once, at `Simd`")]
#[inline(always)]
unsafe fn load_scales<S: Simd, F: Format>(from: *const u8) -> S::F32 {
    unsafe { if F::HAS_WIDE_SCALES { S::load(from.cast()) } else { S::load_f16(from.cast()) } }
}

/// Returns what the sums of the low halves of a block, or of the part of it that has a scale, begin with. It
/// makes up for the high halves, too.
///
/// # Safety
/// That of [`Simd`].
#[allow(clippy::undocumented_unsafe_blocks, reason = "what has to hold is said once, at `Simd`")]
#[inline(always)]
unsafe fn start<S: Simd, F: Format>(InputBlock { sums, .. }: &InputBlock, part: usize) -> S::I32 {
    let inputs = if F::SCALES == 1 { sums[0] + sums[1] } else { sums[part] };
    unsafe { if F::BITS == 8 { S::start_quads(inputs) } else { S::splat_i32(-F::ZERO * inputs) } }
}

/// Adds the products of four weights and four halves of inputs to each lane.
///
/// # Safety
/// That of [`Simd`].
#[allow(clippy::undocumented_unsafe_blocks, reason = "what has to hold is said once, at `Simd`")]
#[inline(always)]
unsafe fn dot<S: Simd, F: Format>(weights: S::Quads, inputs: S::Quad, sum: S::I32) -> S::I32 {
    unsafe {
        if F::BITS == 8 {
            S::dot_quads(weights, inputs, sum)
        } else {
            S::dot_unsigned_quads(weights, inputs, sum)
        }
    }
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
            let first = step.add(Layout::<F>::SCALES + half * LANES * Layout::<F>::SCALE_BYTES);
            let stride = PANEL * Layout::<F>::SCALE_BYTES;
            let scale = load_scales::<S, F>(first);
            let scales = [scale, if F::SCALES == 2 { load_scales::<S, F>(first.add(stride)) } else { scale }];
            let minima = if F::HAS_MINIMUM {
                load_scales::<S, F>(first.add(F::SCALES * stride))
            } else {
                S::splat(0.0)
            };
            Loaded { quads, scales, minima }
        }
    }

    #[inline(always)]
    unsafe fn splat<S: Simd>(from: *const InputBlock) -> *const InputBlock {
        from
    }

    /// Inputs are spread once for both halves.
    #[allow(clippy::needless_range_loop, reason = "the indices have to be numbers that the compiler knows")]
    #[inline(always)]
    unsafe fn add<S: Simd>(weights: &[Loaded<S>; 2], inputs: *const InputBlock, totals: &mut [S::F32; 2]) {
        unsafe {
            let InputBlock { scale, scaled_sum, high, low, .. } = &*inputs;
            let (high, low) = (high.0.as_ptr(), low.0.as_ptr());
            let quads_of_scale = QUADS / F::SCALES;
            for part in 0..F::SCALES {
                let mut of_low = [start::<S, F>(&*inputs, part); 2];
                let mut of_high = [S::splat_i32(0); 2];
                for quad in part * quads_of_scale..(part + 1) * quads_of_scale {
                    let (of_step, rest) =
                        (S::splat_quad(high.add(4 * quad)), S::splat_quad(low.add(4 * quad)));
                    for h in 0..2 {
                        let weights = weights[h].quads[quad];
                        of_high[h] = dot::<S, F>(weights, of_step, of_high[h]);
                        of_low[h] = dot::<S, F>(weights, rest, of_low[h]);
                    }
                }
                for h in 0..2 {
                    let integers = S::join_halves(of_high[h], of_low[h]);
                    let factor = S::mul(weights[h].scales[part], S::splat(*scale));
                    totals[h] = S::mul_add(S::to_f32(integers), factor, totals[h]);
                }
            }
            if F::HAS_MINIMUM {
                for h in 0..2 {
                    totals[h] = S::mul_add(weights[h].minima, S::splat(*scaled_sum), totals[h]);
                }
            }
        }
    }

    /// Sums of a block wait for the addition before, so that many rows are under way at the same time: the
    /// high halves of all, then, on top of them, the low ones, for which the sums stay in registers.
    #[allow(clippy::needless_range_loop, reason = "the indices have to be numbers that the compiler knows")]
    #[inline(always)]
    unsafe fn add_rows<S: Simd, const R: usize, const P: usize>(
        weights: &[Loaded<S>; 2],
        inputs: &[*const InputBlock; R],
        totals: &mut [[[S::F32; 2]; P]; R],
        p: usize,
    ) {
        unsafe {
            if R < 4 || S::TILE_ROWS < 8 {
                for r in 0..R {
                    Self::add::<S>(weights, inputs[r], &mut totals[r][p]);
                }
                return;
            }
            let quads_of_scale = QUADS / F::SCALES;
            for part in 0..F::SCALES {
                let quads = part * quads_of_scale..(part + 1) * quads_of_scale;
                let mut sums = [[S::splat_i32(0); 2]; R];
                for quad in quads.clone() {
                    for r in 0..R {
                        let quad_of_row = S::splat_quad((*inputs[r]).high.0.as_ptr().add(4 * quad));
                        for h in 0..2 {
                            sums[r][h] = dot::<S, F>(weights[h].quads[quad], quad_of_row, sums[r][h]);
                        }
                    }
                }
                for r in 0..R {
                    let start = start::<S, F>(&*inputs[r], part);
                    for h in 0..2 {
                        sums[r][h] = S::join_halves(sums[r][h], start);
                    }
                }
                for quad in quads {
                    for r in 0..R {
                        let quad_of_row = S::splat_quad((*inputs[r]).low.0.as_ptr().add(4 * quad));
                        for h in 0..2 {
                            sums[r][h] = dot::<S, F>(weights[h].quads[quad], quad_of_row, sums[r][h]);
                        }
                    }
                }
                for r in 0..R {
                    for h in 0..2 {
                        let factor = S::mul(weights[h].scales[part], S::splat((*inputs[r]).scale));
                        let total = &mut totals[r][p][h];
                        *total = S::mul_add(S::to_f32(sums[r][h]), factor, *total);
                    }
                }
            }
            if F::HAS_MINIMUM {
                for r in 0..R {
                    for h in 0..2 {
                        let sum = S::splat((*inputs[r]).scaled_sum);
                        let total = &mut totals[r][p][h];
                        *total = S::mul_add(weights[h].minima, sum, *total);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut f32, sum: S::F32) {
        unsafe { S::store(to, sum) }
    }

    #[inline(always)]
    fn product_of_matrices<S: Simd>(
        panels: &Panels<Self>,
        range: Range<usize>,
        inputs: &[InputBlock],
        emit: &mut impl FnMut(usize, usize, &[f32; PANEL]),
    ) -> bool {
        let blocks = panels.stride();
        let rows = inputs.len() / blocks;
        // Scales of half a block would need sums of 16 inputs.
        if F::SCALES > 1 || rows < FEWEST_ROWS || !amx::is_there() {
            return false;
        }
        let mut weights = vec![amx::BlockWeights([0; PANEL * BLOCK]); blocks];
        let mut scales = vec![[[0.0; PANEL]; 2]; blocks];
        let mut of_tiles = amx::BlockSums([[[[0; LANES]; amx::ROWS]; 2]; 2]);
        for panel in range {
            for ((step, weights), scales) in panels.steps_of(panel).zip(&mut weights).zip(&mut scales) {
                unpack::<S, F>(step, weights, scales);
            }
            for first in (0..rows).step_by(amx::ROWS) {
                let count = (rows - first).min(amx::ROWS);
                let tiles = amx::BlockTiles::new(count);
                let mut sums = [[0.0; PANEL]; amx::ROWS];
                for block in 0..blocks {
                    let of_rows = &inputs[first * blocks + block..];
                    let first_row = &of_rows[0];
                    let halves = [&first_row.high, &first_row.low].map(|half| half.0.as_ptr());
                    let stride = blocks * size_of::<InputBlock>();
                    // SAFETY: there are `count` rows from the first one on, each with this block.
                    unsafe { tiles.multiply(&weights[block], halves, stride, &mut of_tiles) };
                    let amx::BlockSums([high, low]) = &of_tiles;
                    for row in 0..count {
                        let InputBlock { scale, scaled_sum, .. } = of_rows[row * blocks];
                        let [scales, minima] = &scales[block];
                        for half in 0..2 {
                            let (high, low) = (&high[half][row], &low[half][row]);
                            let sums = &mut sums[row][half * LANES..][..LANES];
                            let scales = &scales[half * LANES..][..LANES];
                            let minima = &minima[half * LANES..][..LANES];
                            for i in 0..LANES {
                                let integer = (128 * high[i] + low[i]) as f32;
                                let sum = integer.mul_add(scales[i] * scale, sums[i]);
                                sums[i] =
                                    if F::HAS_MINIMUM { minima[i].mul_add(scaled_sum, sum) } else { sum };
                            }
                        }
                    }
                }
                drop(tiles);
                for (row, sums) in sums[..count].iter().enumerate() {
                    emit(panel, first + row, sums);
                }
            }
        }
        true
    }
}

/// The weights of a step as tiles take them, less what 0 is stored as, and the scales and minima of all
/// outputs.
#[inline(always)]
fn unpack<S: Simd, F: Format>(step: &[u8], weights: &mut amx::BlockWeights, scales: &mut [[f32; PANEL]; 2]) {
    let of_half = LANES * BLOCK;
    for half in 0..2 {
        let to = &mut weights.0[half * of_half..][..of_half];
        let from = &step[half * Layout::<F>::QUANTS..][..Layout::<F>::QUANTS];
        if F::BITS == 8 {
            for (to, &quant) in to.iter_mut().zip(from) {
                *to = quant as i8;
            }
            continue;
        }
        let (first, second) = to.split_at_mut(of_half / 2);
        for ((first, second), &both) in first.iter_mut().zip(second).zip(from) {
            *first = (both & 15) as i8;
            *second = (both >> 4) as i8;
        }
        if F::BITS == 5 {
            let fifth = &step[Layout::<F>::FIFTH_BITS + half * of_half / 8..][..of_half / 8];
            for (to, bits) in to.as_chunks_mut::<8>().0.iter_mut().zip(fifth) {
                for (i, to) in to.iter_mut().enumerate() {
                    *to += ((bits >> i) & 1) as i8 * 16;
                }
            }
        }
        for to in to.iter_mut() {
            *to -= F::ZERO as i8;
        }
    }
    let of_scale = PANEL * Layout::<F>::SCALE_BYTES;
    for (index, to) in scales[..1 + usize::from(F::HAS_MINIMUM)].iter_mut().enumerate() {
        let from = &step[Layout::<F>::SCALES + index * of_scale..][..of_scale];
        // SAFETY: a panel has as many scales, and the caller runs with the instructions of `S`.
        unsafe {
            S::store(to.as_mut_ptr(), load_scales::<S, F>(from.as_ptr()));
            S::store(to.as_mut_ptr().add(LANES), load_scales::<S, F>(from.as_ptr().add(of_scale / 2)));
        }
    }
}

/// A scale of an output, or, as that after the last one, its minimum.
#[inline(always)]
fn scale_at<F: Format>(step: &[u8], index: usize, output: usize) -> f32 {
    let from = &step[Layout::<F>::scale(index, output)..];
    match F::HAS_WIDE_SCALES {
        true => f32::from_ne_bytes([from[0], from[1], from[2], from[3]]),
        false => f16::from_ne_bytes([from[0], from[1]]).to_f32(),
    }
}
