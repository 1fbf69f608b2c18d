#![allow(clippy::undocumented_unsafe_blocks, reason = "what has to hold is said once, at `Simd`")]

use half::{bf16, f16};

use super::{InstructionSet, LANES, Simd};

/// Plain arrays, which the compiler maps to what every machine of the target has (NEON on AArch64).
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Simd for Portable {
    type F32 = [f32; LANES];
    type I32 = [i32; LANES];
    type Quads = [[i8; 4]; LANES];
    type Quad = [i8; 4];
    const SET: InstructionSet = InstructionSet::Portable;
    const TILE_ROWS: usize = 2;

    #[inline(always)]
    fn prefetch(_from: *const u8) {}

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; LANES] {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; LANES] {
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> [f32; LANES] {
        unsafe { from.cast::<[bf16; LANES]>().read_unaligned() }.map(bf16::to_f32)
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> [f32; LANES] {
        unsafe { from.cast::<[f16; LANES]>().read_unaligned() }.map(f16::to_f32)
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: [f32; LANES]) {
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(x) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|i| {
            // Without an instruction for it, `mul_add` is a slow call.
            if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                a[i].mul_add(b[i], c[i])
            } else {
                a[i] * b[i] + c[i]
            }
        })
    }

    #[inline(always)]
    unsafe fn mul(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn add(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    unsafe fn splat_i32(x: i32) -> [i32; LANES] {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn to_f32(x: [i32; LANES]) -> [f32; LANES] {
        x.map(|x| x as f32)
    }

    #[inline(always)]
    unsafe fn join_halves(high: [i32; LANES], low: [i32; LANES]) -> [i32; LANES] {
        std::array::from_fn(|i| 128 * high[i] + low[i])
    }

    #[inline(always)]
    unsafe fn store_i32(to: *mut i32, x: [i32; LANES]) {
        unsafe { to.cast::<[i32; LANES]>().write_unaligned(x) }
    }

    #[inline(always)]
    unsafe fn start_quads(_inputs: i32) -> [i32; LANES] {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn load_quads(from: *const i8) -> [[i8; 4]; LANES] {
        unsafe { from.cast::<[[i8; 4]; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn splat_quad(from: *const i8) -> [i8; 4] {
        unsafe { from.cast::<[i8; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn dot_quads(weights: [[i8; 4]; LANES], inputs: [i8; 4], sum: [i32; LANES]) -> [i32; LANES] {
        std::array::from_fn(|i| {
            let products = weights[i].iter().zip(inputs).map(|(&w, x)| i32::from(w) * i32::from(x));
            sum[i] + products.sum::<i32>()
        })
    }

    #[inline(always)]
    unsafe fn load_nibbles(from: *const u8) -> [[[i8; 4]; LANES]; 2] {
        let both = unsafe { from.cast::<[[u8; 4]; LANES]>().read_unaligned() };
        [both.map(|quad| quad.map(|x| (x & 15) as i8)), both.map(|quad| quad.map(|x| (x >> 4) as i8))]
    }

    #[inline(always)]
    unsafe fn add_fifth_bits(weights: [[i8; 4]; LANES], bits: *const u8) -> [[i8; 4]; LANES] {
        let bits = u64::from_le_bytes(unsafe { bits.cast::<[u8; 8]>().read_unaligned() });
        std::array::from_fn(|lane| {
            std::array::from_fn(|i| weights[lane][i] + ((bits >> (4 * lane + i) & 1) as i8) * 16)
        })
    }

    #[inline(always)]
    unsafe fn dot_unsigned_quads(
        weights: [[i8; 4]; LANES],
        inputs: [i8; 4],
        sum: [i32; LANES],
    ) -> [i32; LANES] {
        // Weights below 32 have room for a sign.
        unsafe { Self::dot_quads(weights, inputs, sum) }
    }
}
