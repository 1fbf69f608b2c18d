//! Sums of products whose factors lie in plain slices.

use super::{Element, LANES, Simd};

/// Computes the products of x with numbers of four bytes, f32, or of two, bf16, as far as they fill vectors,
/// and adds them up in sixteen sums. The caller runs with the instructions of `S`.
#[inline(always)]
pub(crate) fn sums_of_products<S: Simd, const SIZE: usize>(
    x: &[f32],
    numbers: &[[u8; SIZE]],
) -> [f32; LANES] {
    const { assert!(SIZE == 2 || SIZE == 4) };
    let mut sums = [0.0; LANES];
    // SAFETY: each vector is inside its slice.
    unsafe {
        let mut total = S::splat(0.0);
        for (x, numbers) in x.as_chunks::<LANES>().0.iter().zip(numbers.as_chunks::<LANES>().0) {
            let numbers = numbers.as_ptr();
            let numbers = if SIZE == 4 { S::load(numbers.cast()) } else { S::load_bf16(numbers.cast()) };
            total = S::add(total, S::mul(S::load(x.as_ptr()), numbers));
        }
        S::store(sums.as_mut_ptr(), total);
    }
    sums
}

/// Adds up the first rows of `R` matrices, which are `stride` apart, each times its weight: `sums[r]` is what
/// the rows of matrix `r` come to, as far as `sums` are long. Of `SHARED` matrices only the first is read.
/// All have the same number of weights and sums.
///
/// Each sum is in the order of the rows, whatever `R`. The chains of additions of all `R` are under way at
/// the same time, since a single one would wait for itself. The caller runs with the instructions of `S`.
#[inline(always)]
pub(crate) fn weighted_sums<S: Simd, E: Element, const R: usize, const SHARED: bool>(
    weights: [&[f32]; R],
    matrices: [&[E]; R],
    stride: usize,
    mut sums: [&mut [f32]; R],
) {
    let (rows, width) = (weights[0].len(), sums[0].len());
    let needed = rows.saturating_sub(1) * stride + width;
    for r in 0..R {
        assert!(weights[r].len() == rows && sums[r].len() == width, "of another shape");
        assert!(matrices[r].len() >= needed, "no such rows");
    }
    let mut task = Task { weights, matrices, stride, sums: sums.each_mut().map(|sums| &mut **sums) };
    // As many sums as there are registers for.
    let most = if S::TILE_ROWS < 8 { 4 / R } else { 12 / R }.clamp(1, 4);
    let mut start = 0;
    while start < width {
        start += match ((width - start) / LANES).min(most) {
            4 => task.vectors::<S, 4, SHARED>(start),
            3 => task.vectors::<S, 3, SHARED>(start),
            2 => task.vectors::<S, 2, SHARED>(start),
            1 => task.vectors::<S, 1, SHARED>(start),
            _ => task.column(start),
        };
    }
}

struct Task<'a, E, const R: usize> {
    weights: [&'a [f32]; R],
    matrices: [&'a [E]; R],
    stride: usize,
    sums: [&'a mut [f32]; R],
}

impl<E: Element, const R: usize> Task<'_, E, R> {
    /// Computes `V` vectors of sums from column `start` on, and returns their width. The caller has checked
    /// that they are there.
    #[allow(clippy::needless_range_loop, reason = "the indices have to be numbers that the compiler knows")]
    #[inline(always)]
    fn vectors<S: Simd, const V: usize, const SHARED: bool>(&mut self, start: usize) -> usize {
        // SAFETY: `weighted_sums` has checked that all rows are inside the matrices, and `start` is inside
        // the sums by as many vectors.
        unsafe {
            let weights = self.weights.map(<[f32]>::as_ptr);
            let matrices = self.matrices.map(|matrix| matrix.as_ptr().add(start));
            let mut totals = [[S::splat(0.0); V]; R];
            for row in 0..self.weights[0].len() {
                let shared: [S::F32; V] =
                    std::array::from_fn(|v| E::load::<S>(matrices[0].add(row * self.stride + v * LANES)));
                for r in 0..R {
                    let weight = S::splat(*weights[r].add(row));
                    for v in 0..V {
                        let x = match SHARED || r == 0 {
                            true => shared[v],
                            false => E::load::<S>(matrices[r].add(row * self.stride + v * LANES)),
                        };
                        totals[r][v] = S::mul_add(weight, x, totals[r][v]);
                    }
                }
            }
            for r in 0..R {
                for v in 0..V {
                    S::store(self.sums[r].as_mut_ptr().add(start + v * LANES), totals[r][v]);
                }
            }
        }
        V * LANES
    }

    /// Computes the sums of one column.
    #[inline(always)]
    fn column(&mut self, start: usize) -> usize {
        for r in 0..R {
            let rows = self.matrices[r][start..].iter().step_by(self.stride);
            self.sums[r][start] =
                self.weights[r].iter().zip(rows).map(|(weight, x)| weight * x.widen()).sum();
        }
        1
    }
}
