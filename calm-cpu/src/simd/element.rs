//! The types in which numbers lie in memory that are computed with as f32.

use half::{bf16, f16};

use super::Simd;

/// A number in memory. To f32 it is widened exactly, on every processor.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    /// Rounds a number to the nearest one of the type. One that is too large for it becomes none, so that an
    /// output which needs it is an error and not another text.
    fn round(x: f32) -> Self;

    fn widen(self) -> f32;

    /// Loads 16 numbers.
    ///
    /// # Safety
    /// This is the condition of [`Simd`].
    unsafe fn load<S: Simd>(from: *const Self) -> S::F32;
}

impl Element for f32 {
    #[inline(always)]
    fn round(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const f32) -> S::F32 {
        // SAFETY: the caller's.
        unsafe { S::load(from) }
    }
}

macro_rules! half_element {
    ($type:ty, $load:ident) => {
        impl Element for $type {
            #[inline(always)]
            fn round(x: f32) -> Self {
                let rounded = Self::from_f32(x);
                if rounded.is_finite() { rounded } else { Self::NAN }
            }

            #[inline(always)]
            fn widen(self) -> f32 {
                self.to_f32()
            }

            #[inline(always)]
            unsafe fn load<S: Simd>(from: *const Self) -> S::F32 {
                // SAFETY: the caller's.
                unsafe { S::$load(from) }
            }
        }
    };
}

half_element!(f16, load_f16);
half_element!(bf16, load_bf16);
