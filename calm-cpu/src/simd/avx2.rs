#![allow(clippy::undocumented_unsafe_blocks, reason = "what has to hold is said once, at `Simd`")]

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{InstructionSet, Simd};

/// Two registers of eight numbers each.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

impl Simd for Avx2 {
    type F32 = [__m256; 2];
    type I32 = [__m256i; 2];
    type Quads = [__m256i; 2];
    // The numbers and their sizes.
    type Quad = [__m256i; 2];
    const SET: InstructionSet = InstructionSet::Avx2;
    // The registers hold 3 rows of 4 sums, 3 inputs and 1 weight.
    const TILE_ROWS: usize = 3;

    #[inline(always)]
    fn prefetch(from: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> [__m256; 2] {
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [__m256; 2] {
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> [__m256; 2] {
        // A bf16 is the upper half of an f32.
        unsafe {
            let widen = |from: *const bf16| {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16))
            };
            [widen(from), widen(from.add(8))]
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> [__m256; 2] {
        unsafe { [0, 8].map(|offset| _mm256_cvtph_ps(_mm_loadu_si128(from.add(offset).cast()))) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: [__m256; 2]) {
        unsafe {
            _mm256_storeu_ps(to, x[0]);
            _mm256_storeu_ps(to.add(8), x[1]);
        }
    }

    #[inline(always)]
    unsafe fn mul_add(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    unsafe fn mul(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn splat_i32(x: i32) -> [__m256i; 2] {
        unsafe { [_mm256_set1_epi32(x); 2] }
    }

    #[inline(always)]
    unsafe fn to_f32(x: [__m256i; 2]) -> [__m256; 2] {
        unsafe { [_mm256_cvtepi32_ps(x[0]), _mm256_cvtepi32_ps(x[1])] }
    }

    #[inline(always)]
    unsafe fn join_halves(high: [__m256i; 2], low: [__m256i; 2]) -> [__m256i; 2] {
        unsafe {
            [
                _mm256_add_epi32(_mm256_slli_epi32::<7>(high[0]), low[0]),
                _mm256_add_epi32(_mm256_slli_epi32::<7>(high[1]), low[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn store_i32(to: *mut i32, x: [__m256i; 2]) {
        unsafe {
            _mm256_storeu_si256(to.cast(), x[0]);
            _mm256_storeu_si256(to.add(8).cast(), x[1]);
        }
    }

    #[inline(always)]
    unsafe fn start_quads(_inputs: i32) -> [__m256i; 2] {
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    unsafe fn load_quads(from: *const i8) -> [__m256i; 2] {
        unsafe { [0, 32].map(|offset| _mm256_loadu_si256(from.add(offset).cast())) }
    }

    #[inline(always)]
    unsafe fn splat_quad(from: *const i8) -> [__m256i; 2] {
        unsafe {
            let inputs = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
            [inputs, _mm256_abs_epi8(inputs)]
        }
    }

    #[inline(always)]
    unsafe fn dot_quads(
        weights: [__m256i; 2],
        [inputs, sizes]: [__m256i; 2],
        sum: [__m256i; 2],
    ) -> [__m256i; 2] {
        // One of the factors has to be without a sign. Two products of 127 times 127 fit into 16 bits.
        unsafe {
            std::array::from_fn(|half| {
                let pairs = _mm256_maddubs_epi16(sizes, _mm256_sign_epi8(weights[half], inputs));
                _mm256_add_epi32(sum[half], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            })
        }
    }

    #[inline(always)]
    unsafe fn load_nibbles(from: *const u8) -> [[__m256i; 2]; 2] {
        unsafe {
            let mask = _mm256_set1_epi8(15);
            let both = [0, 32].map(|offset| _mm256_loadu_si256(from.add(offset).cast()));
            [
                [_mm256_and_si256(both[0], mask), _mm256_and_si256(both[1], mask)],
                [
                    _mm256_and_si256(_mm256_srli_epi16::<4>(both[0]), mask),
                    _mm256_and_si256(_mm256_srli_epi16::<4>(both[1]), mask),
                ],
            ]
        }
    }

    #[inline(always)]
    unsafe fn add_fifth_bits(weights: [__m256i; 2], bits: *const u8) -> [__m256i; 2] {
        unsafe {
            let byte_of_lane = _mm256_setr_epi8(
                0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3,
                3,
            );
            let bit_of_lane = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let mut whole = weights;
            for (half, weights) in whole.iter_mut().enumerate() {
                let bits = _mm256_set1_epi32(bits.add(4 * half).cast::<i32>().read_unaligned());
                let own = _mm256_and_si256(_mm256_shuffle_epi8(bits, byte_of_lane), bit_of_lane);
                let is_set = _mm256_cmpeq_epi8(own, bit_of_lane);
                *weights = _mm256_or_si256(*weights, _mm256_and_si256(is_set, _mm256_set1_epi8(16)));
            }
            whole
        }
    }

    #[inline(always)]
    unsafe fn dot_unsigned_quads(
        weights: [__m256i; 2],
        [inputs, _]: [__m256i; 2],
        sum: [__m256i; 2],
    ) -> [__m256i; 2] {
        // Two products of 31 times 127 fit into 16 bits.
        unsafe {
            std::array::from_fn(|half| {
                let pairs = _mm256_maddubs_epi16(weights[half], inputs);
                _mm256_add_epi32(sum[half], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            })
        }
    }
}
