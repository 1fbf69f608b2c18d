//! Sixteen numbers at a time, whatever the registers of the machine hold.
//!
//! This is the only code that differs between processors.
//!
//! Every kernel is one generic body over [`Simd`]; [`with_simd!`] compiles it for each instruction set and
//! picks one when it is called. All instruction sets add in the same order, so that they agree to the last
//! bit if the processor multiplies and adds in one rounding.
#![allow(unsafe_code)]

pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod element;
mod portable;
mod sums;

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
pub(crate) use self::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use self::avx512::Avx512;
pub(crate) use self::element::Element;
pub(crate) use self::portable::Portable;
pub(crate) use self::sums::{sums_of_products, weighted_sums};

/// Number of lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Operations on vectors of [`LANES`] numbers.
///
/// # Safety
/// This is the condition of all functions: the processor has the instruction set, and pointers are readable
/// (writable for `store`) for the numbers named.
pub(crate) trait Simd: Copy + 'static {
    /// A vector of 16 f32.
    type F32: Copy;
    /// A vector of 16 i32.
    type I32: Copy;
    /// A vector of 16 times four weights of 8 bits.
    type Quads: Copy;
    /// Four inputs of 8 bits, the same in all lanes.
    type Quad: Copy;
    /// What the instructions are called.
    const SET: InstructionSet;
    /// Number of rows of inputs for which a tile of 32 outputs has registers.
    const TILE_ROWS: usize;
    /// Whether some processors with these instructions have those for whole matrices, too.
    const MAY_HAVE_MATRICES: bool = false;

    /// Asks for the cache line at an address, which may be any.
    fn prefetch(from: *const u8);

    unsafe fn splat(x: f32) -> Self::F32;
    unsafe fn load(from: *const f32) -> Self::F32;
    unsafe fn load_bf16(from: *const bf16) -> Self::F32;
    unsafe fn load_f16(from: *const f16) -> Self::F32;
    unsafe fn store(to: *mut f32, x: Self::F32);
    /// Computes a * b + c.
    unsafe fn mul_add(a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    unsafe fn mul(a: Self::F32, b: Self::F32) -> Self::F32;
    unsafe fn add(a: Self::F32, b: Self::F32) -> Self::F32;

    unsafe fn splat_i32(x: i32) -> Self::I32;
    unsafe fn store_i32(to: *mut i32, x: Self::I32);
    unsafe fn to_f32(x: Self::I32) -> Self::F32;
    /// Computes 128 * high + low.
    unsafe fn join_halves(high: Self::I32, low: Self::I32) -> Self::I32;
    /// Returns what sums of [`dot_quads`](Self::dot_quads) begin with, for inputs that add up to `inputs`.
    unsafe fn start_quads(inputs: i32) -> Self::I32;
    /// Loads 64 weights.
    unsafe fn load_quads(from: *const i8) -> Self::Quads;
    /// Puts the same four inputs into all lanes.
    unsafe fn splat_quad(from: *const i8) -> Self::Quad;
    /// Adds the products of four weights and four inputs to each lane. No number is -128, since its size has
    /// no 8 bits.
    unsafe fn dot_quads(weights: Self::Quads, inputs: Self::Quad, sum: Self::I32) -> Self::I32;
    /// Loads 64 bytes as 64 weights of 4 bits without a sign, the lower ones, and 64 more.
    unsafe fn load_nibbles(from: *const u8) -> [Self::Quads; 2];
    /// Adds 16 to those of 64 weights of 4 bits whose bit is set in 8 bytes.
    unsafe fn add_fifth_bits(weights: Self::Quads, bits: *const u8) -> Self::Quads;
    /// Adds the products of four weights without a sign, at most 31, and four inputs to each lane.
    unsafe fn dot_unsigned_quads(weights: Self::Quads, inputs: Self::Quad, sum: Self::I32) -> Self::I32;
}

/// An instruction set that this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstructionSet {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl InstructionSet {
    /// Lists all instruction sets that this machine has, the fastest first.
    pub(crate) fn available() -> Vec<InstructionSet> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
            {
                all.push(InstructionSet::Avx512);
            }
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                all.push(InstructionSet::Avx2);
            }
        }
        all.push(InstructionSet::Portable);
        all
    }
}

/// Calls `$function::<S>($arguments)` with the vectors of `$set`, compiled for its instructions.
macro_rules! with_simd {
    ($set:expr, $function:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?) => {{
        use $crate::simd::{InstructionSet, Portable};
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2($($argument: $type),*) $(-> $result)? {
            $function::<$crate::simd::Avx2>($($argument),*)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vnni")]
        fn avx512($($argument: $type),*) $(-> $result)? {
            $function::<$crate::simd::Avx512>($($argument),*)
        }
        #[allow(unsafe_code)]
        let result = match $set {
            // SAFETY: an instruction set is only ever named after the processor was asked for it.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => unsafe { avx512($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => unsafe { avx2($($argument),*) },
            InstructionSet::Portable => $function::<Portable>($($argument),*),
        };
        result
    }};
}
pub(crate) use with_simd;
