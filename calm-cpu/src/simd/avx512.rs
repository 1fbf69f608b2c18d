#![allow(clippy::undocumented_unsafe_blocks, reason = "what has to hold is said once, at `Simd`")]

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{InstructionSet, Simd};

/// One register of sixteen numbers, with VNNI's sums of four products.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

impl Simd for Avx512 {
    type F32 = __m512;
    type I32 = __m512i;
    type Quads = __m512i;
    type Quad = __m512i;
    const SET: InstructionSet = InstructionSet::Avx512;
    // The registers hold 8 rows of 2 sums, 8 inputs and 2 weights. With 12 rows the addresses of the inputs
    // would no longer fit into registers, which costs more than it saves.
    const TILE_ROWS: usize = 8;
    const MAY_HAVE_MATRICES: bool = true;

    #[inline(always)]
    fn prefetch(from: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> __m512 {
        // A bf16 is the upper half of an f32.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(to, x) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn splat_i32(x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn to_f32(x: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(x) }
    }

    #[inline(always)]
    unsafe fn join_halves(high: __m512i, low: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(_mm512_slli_epi32::<7>(high), low) }
    }

    #[inline(always)]
    unsafe fn store_i32(to: *mut i32, x: __m512i) {
        unsafe { _mm512_storeu_si512(to.cast(), x) }
    }

    #[inline(always)]
    unsafe fn start_quads(inputs: i32) -> __m512i {
        // VNNI wants one of the factors without a sign: these are the weights, 128 too large.
        unsafe { _mm512_set1_epi32(-128 * inputs) }
    }

    #[inline(always)]
    unsafe fn load_quads(from: *const i8) -> __m512i {
        unsafe { _mm512_xor_si512(_mm512_loadu_si512(from.cast()), _mm512_set1_epi8(-128)) }
    }

    #[inline(always)]
    unsafe fn splat_quad(from: *const i8) -> __m512i {
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn dot_quads(weights: __m512i, inputs: __m512i, sum: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, weights, inputs) }
    }

    #[inline(always)]
    unsafe fn load_nibbles(from: *const u8) -> [__m512i; 2] {
        unsafe {
            let (both, mask) = (_mm512_loadu_si512(from.cast()), _mm512_set1_epi8(15));
            [_mm512_and_si512(both, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(both), mask)]
        }
    }

    #[inline(always)]
    unsafe fn add_fifth_bits(weights: __m512i, bits: *const u8) -> __m512i {
        unsafe {
            let bits = bits.cast::<u64>().read_unaligned();
            _mm512_mask_add_epi8(weights, bits, weights, _mm512_set1_epi8(16))
        }
    }

    #[inline(always)]
    unsafe fn dot_unsigned_quads(weights: __m512i, inputs: __m512i, sum: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, weights, inputs) }
    }
}
