#![allow(clippy::undocumented_unsafe_blocks, reason = "what has to hold is said once, at `Simd`")]

use std::arch::x86_64::*;

use half::bf16;

use super::Simd;

/// Two registers of eight numbers each.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

impl Simd for Avx2 {
    type F32 = [__m256; 2];
    type I32 = [__m256i; 2];
    type Pairs = [__m256i; 2];
    // The registers hold 3 rows of 4 sums, 3 inputs and 1 weight.
    const TILE_ROWS: usize = 3;

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
    unsafe fn zero_i32() -> [__m256i; 2] {
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    unsafe fn to_f32(x: [__m256i; 2]) -> [__m256; 2] {
        unsafe { [_mm256_cvtepi32_ps(x[0]), _mm256_cvtepi32_ps(x[1])] }
    }

    #[inline(always)]
    unsafe fn splat_pair(from: *const i16) -> [__m256i; 2] {
        unsafe { [_mm256_set1_epi32(from.cast::<i32>().read_unaligned()); 2] }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> [__m256i; 2] {
        unsafe {
            let widen = |from: *const i8| _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast()));
            [widen(from), widen(from.add(16))]
        }
    }

    #[inline(always)]
    unsafe fn dot_pairs(a: [__m256i; 2], b: [__m256i; 2], c: [__m256i; 2]) -> [__m256i; 2] {
        unsafe {
            let dot = |i: usize| _mm256_add_epi32(c[i], _mm256_madd_epi16(a[i], b[i]));
            [dot(0), dot(1)]
        }
    }
}
