//! Matrices packed for products with few rows.
//!
//! A matrix [outputs, inputs] is cut into panels of 32 outputs. Within a panel the weights lie in the order
//! in which a product reads them, input by input. One row of inputs streams through a panel from front to
//! end, which is as fast as memory delivers; for several rows a tile of accumulators stays in registers. Each
//! output is one sum in the order of the inputs, whatever the tile, so that a row's result does not depend on
//! the other rows.
#![allow(unsafe_code)]

use std::ops::Range;

use half::bf16;

use crate::simd::{LANES, Simd, amx};

/// Number of outputs of a panel.
pub(crate) const PANEL: usize = 2 * LANES;

/// Number of bytes of a panel that are asked for ahead where a single row reads it.
const AHEAD: usize = 1024;

/// How weights are stored and multiplied. A product reads a panel step by step.
pub(crate) trait Weight: Sized + Send + Sync + 'static {
    /// What a row of inputs consists of: numbers, or blocks of them.
    type Input: Copy + Default;
    /// Type of the sums.
    type Output: Copy + Default;
    /// Number of inputs of a step.
    const DEPTH: usize;
    /// Number of elements of a row of inputs that a step reads.
    const STEP_INPUTS: usize = Self::DEPTH;
    /// Bytes of the weights of a panel for one step, whole cache lines.
    const STEP_BYTES: usize;
    /// What the length of a row of inputs is filled up to a multiple of.
    const PADDING: usize = Self::DEPTH;
    /// Number of elements in front of each row, of which [`start`](Self::start) makes what its sums begin
    /// with.
    const LEAD: usize = 0;
    type Loaded<S: Simd>: Copy;
    type Splat<S: Simd>: Copy;
    type Sum<S: Simd>: Copy;

    /// Returns the sum of no products of a row, whose lead is at `from`.
    ///
    /// # Safety
    /// This is the condition here and below: it is that of [`Simd`].
    unsafe fn start<S: Simd>(from: *const Self::Input) -> Self::Sum<S>;
    /// Loads the weights of 16 outputs, the first or the second half of a panel, for the step at `step`.
    unsafe fn load<S: Simd>(step: *const u8, half: usize) -> Self::Loaded<S>;
    /// Loads the inputs of one step, for all outputs.
    unsafe fn splat<S: Simd>(from: *const Self::Input) -> Self::Splat<S>;
    /// Adds the products of a step to the sums of both halves of a panel.
    unsafe fn add<S: Simd>(
        weights: &[Self::Loaded<S>; 2],
        inputs: Self::Splat<S>,
        sums: &mut [Self::Sum<S>; 2],
    );
    /// Adds the products of a step with panel `p` for all rows of a tile, which may be under way at the same
    /// time.
    #[allow(clippy::needless_range_loop, reason = "the indices have to be numbers that the compiler knows")]
    #[inline(always)]
    unsafe fn add_rows<S: Simd, const R: usize, const P: usize>(
        weights: &[Self::Loaded<S>; 2],
        inputs: &[Self::Splat<S>; R],
        sums: &mut [[[Self::Sum<S>; 2]; P]; R],
        p: usize,
    ) {
        for r in 0..R {
            // SAFETY: the caller's.
            unsafe { Self::add::<S>(weights, inputs[r], &mut sums[r][p]) };
        }
    }
    unsafe fn store<S: Simd>(to: *mut Self::Output, sum: Self::Sum<S>);

    /// Computes a product as [`Panels::product`] does, if the processor has instructions for whole matrices
    /// of this type and the rows are worth it. Returns whether it did.
    fn product_of_matrices<S: Simd>(
        _panels: &Panels<Self>,
        _range: Range<usize>,
        _inputs: &[Self::Input],
        _emit: &mut impl FnMut(usize, usize, &[Self::Output; PANEL]),
    ) -> bool {
        false
    }
}

macro_rules! float_weight {
    ($type:ty, $load:ident) => {
        #[allow(clippy::undocumented_unsafe_blocks, reason = "what has to hold is said once, at `Simd`")]
        impl Weight for $type {
            type Input = f32;
            type Output = f32;
            const DEPTH: usize = 1;
            const STEP_BYTES: usize = PANEL * size_of::<$type>();
            type Loaded<S: Simd> = S::F32;
            type Splat<S: Simd> = S::F32;
            type Sum<S: Simd> = S::F32;

            #[inline(always)]
            unsafe fn start<S: Simd>(_from: *const f32) -> S::F32 {
                unsafe { S::splat(0.0) }
            }

            #[inline(always)]
            unsafe fn load<S: Simd>(step: *const u8, half: usize) -> S::F32 {
                unsafe { S::$load(step.cast::<$type>().add(half * LANES)) }
            }

            #[inline(always)]
            unsafe fn splat<S: Simd>(from: *const f32) -> S::F32 {
                unsafe { S::splat(*from) }
            }

            #[inline(always)]
            unsafe fn add<S: Simd>(weights: &[S::F32; 2], inputs: S::F32, sums: &mut [S::F32; 2]) {
                for (weights, sum) in weights.iter().zip(sums) {
                    *sum = unsafe { S::mul_add(*weights, inputs, *sum) };
                }
            }

            #[inline(always)]
            unsafe fn store<S: Simd>(to: *mut f32, sum: S::F32) {
                unsafe { S::store(to, sum) }
            }
        }
    };
}

float_weight!(f32, load);
float_weight!(bf16, load_bf16);

/// Weights and inputs of 8 bits, from -127 to 127, whose sums are integers.
#[allow(clippy::undocumented_unsafe_blocks, reason = "what has to hold is said once, at `Simd`")]
impl Weight for i8 {
    type Input = i8;
    type Output = i32;
    const DEPTH: usize = 4;
    const STEP_BYTES: usize = PANEL * Self::DEPTH;
    // Instructions for matrices take a cache line of each row.
    const PADDING: usize = amx::DEPTH;
    // The sum of the row.
    const LEAD: usize = 4;
    type Loaded<S: Simd> = S::Quads;
    type Splat<S: Simd> = S::Quad;
    type Sum<S: Simd> = S::I32;

    #[inline(always)]
    unsafe fn start<S: Simd>(from: *const i8) -> S::I32 {
        unsafe { S::start_quads(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(step: *const u8, half: usize) -> S::Quads {
        unsafe { S::load_quads(step.cast::<i8>().add(half * LANES * Self::DEPTH)) }
    }

    #[inline(always)]
    unsafe fn splat<S: Simd>(from: *const i8) -> S::Quad {
        unsafe { S::splat_quad(from) }
    }

    #[inline(always)]
    unsafe fn add<S: Simd>(weights: &[S::Quads; 2], inputs: S::Quad, sums: &mut [S::I32; 2]) {
        for (weights, sum) in weights.iter().zip(sums) {
            *sum = unsafe { S::dot_quads(*weights, inputs, *sum) };
        }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut i32, sum: S::I32) {
        unsafe { S::store_i32(to, sum) }
    }

    #[inline(always)]
    fn product_of_matrices<S: Simd>(
        panels: &Panels<i8>,
        range: Range<usize>,
        inputs: &[i8],
        emit: &mut impl FnMut(usize, usize, &[i32; PANEL]),
    ) -> bool {
        let stride = panels.stride();
        if inputs.len() / stride < amx::FEWEST_ROWS || !amx::is_there() {
            return false;
        }
        let size = panels.panel_bytes();
        // SAFETY: the panels are inside the lines.
        let weights = unsafe {
            let first = panels.lines.as_ptr().cast::<i8>().add(range.start * size);
            std::slice::from_raw_parts(first, range.len() * size)
        };
        let inputs = amx::Rows { data: inputs, stride, start: Self::LEAD };
        amx::product(
            weights,
            size,
            inputs,
            #[inline(always)]
            |panel, row, sums| emit(range.start + panel, row, sums),
        );
        true
    }
}

/// A packed matrix.
pub(crate) struct Panels<W> {
    /// The weights by panel and step.
    lines: Vec<Line>,
    outputs: usize,
    /// Number of steps of a panel. The end of a row of inputs is filled up with zeros.
    steps: usize,
    weight: std::marker::PhantomData<W>,
}

/// Bytes on one cache line: vectors are read fastest if they do not cross from one line to the next.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read through a pointer")] [u8; 64]);

impl<W: Weight + Copy + Default> Panels<W> {
    /// Packs a matrix in which (output, input) has the weight `weight(output, input)`. Within a step the
    /// weights lie by output, and input of the step.
    pub(crate) fn pack(outputs: usize, inputs: usize, mut weight: impl FnMut(usize, usize) -> W) -> Self {
        Self::pack_steps(outputs, inputs, |output, step, bytes| {
            // SAFETY: the bytes of a step are aligned to a cache line and are its weights, zeros at first,
            // which are a weight of each type.
            let weights = unsafe {
                let count = PANEL * W::DEPTH;
                assert!(bytes.len() == count * size_of::<W>(), "not a step of these weights");
                std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast::<W>(), count)
            };
            let of_output = &mut weights[output % PANEL * W::DEPTH..][..W::DEPTH];
            for (to, input) in of_output.iter_mut().zip(step * W::DEPTH..inputs) {
                *to = weight(output, input);
            }
        })
    }
}

impl<W: Weight> Panels<W> {
    /// Packs a matrix. `write(output, step, bytes)` writes what an output has in a step of its panel, output
    /// after output; what nobody writes is zero.
    pub(crate) fn pack_steps(
        outputs: usize,
        inputs: usize,
        mut write: impl FnMut(usize, usize, &mut [u8]),
    ) -> Self {
        const { assert!(W::STEP_BYTES.is_multiple_of(size_of::<Line>())) };
        let steps = inputs.next_multiple_of(W::PADDING) / W::DEPTH;
        let count = outputs.div_ceil(PANEL) * steps * W::STEP_BYTES / size_of::<Line>();
        let mut lines = vec![Line([0; 64]); count];
        // SAFETY: lines are bytes.
        let bytes = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<u8>(), count * 64) };
        for output in 0..outputs {
            let panel = &mut bytes[output / PANEL * steps * W::STEP_BYTES..][..steps * W::STEP_BYTES];
            for (step, bytes) in panel.chunks_exact_mut(W::STEP_BYTES).enumerate() {
                write(output, step, bytes);
            }
        }
        Panels { lines, outputs, steps, weight: std::marker::PhantomData }
    }

    /// The bytes of the steps of one panel.
    pub(crate) fn steps_of(&self, panel: usize) -> impl Iterator<Item = &[u8]> {
        // SAFETY: lines are bytes.
        let bytes = unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast::<u8>(), self.bytes()) };
        bytes[panel * self.panel_bytes()..][..self.panel_bytes()].chunks_exact(W::STEP_BYTES)
    }

    fn panel_bytes(&self) -> usize {
        self.steps * W::STEP_BYTES
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Length of a row of inputs, whose end is filled up with zeros.
    pub(crate) fn padded_inputs(&self) -> usize {
        self.steps * W::DEPTH
    }

    /// Number of panels.
    pub(crate) fn len(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// Number of bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    /// Length of a row of inputs with what is in front of it.
    pub(crate) fn stride(&self) -> usize {
        W::LEAD + self.steps * W::STEP_INPUTS
    }

    /// Computes products of the panels in `range` with `rows` of inputs [rows, stride].
    ///
    /// Calls `emit(panel, row, sums)`: for any row, panel after panel, and for any panel, row after row.
    #[inline(always)]
    pub(crate) fn product<S: Simd>(
        &self,
        range: Range<usize>,
        inputs: &[W::Input],
        mut emit: impl FnMut(usize, usize, &[W::Output; PANEL]),
    ) {
        assert!(range.end <= self.len() && inputs.len().is_multiple_of(self.stride()), "not of this matrix");
        let rows = inputs.len() / self.stride();
        if S::MAY_HAVE_MATRICES && W::product_of_matrices::<S>(self, range.clone(), inputs, &mut emit) {
            return;
        }
        // Of few rows several panels at a time, since each sum waits for the addition before.
        let mut panel = range.start;
        if rows == 1 {
            while S::TILE_ROWS >= 8 && panel + 4 <= range.end {
                self.tile::<S, 1, 4>(panel, inputs, 0, &mut emit);
                panel += 4;
            }
            while panel + 2 <= range.end {
                self.tile::<S, 1, 2>(panel, inputs, 0, &mut emit);
                panel += 2;
            }
        }
        while rows == 2 && S::TILE_ROWS >= 8 && panel + 2 <= range.end {
            self.tile::<S, 2, 2>(panel, inputs, 0, &mut emit);
            panel += 2;
        }
        for panel in panel..range.end {
            let mut row = 0;
            while row < rows {
                row += match (rows - row).min(S::TILE_ROWS) {
                    8.. => self.tile::<S, 8, 1>(panel, inputs, row, &mut emit),
                    4.. => self.tile::<S, 4, 1>(panel, inputs, row, &mut emit),
                    3 => self.tile::<S, 3, 1>(panel, inputs, row, &mut emit),
                    2 => self.tile::<S, 2, 1>(panel, inputs, row, &mut emit),
                    _ => self.tile::<S, 1, 1>(panel, inputs, row, &mut emit),
                };
            }
        }
    }

    /// Computes `P` panels from `panel` on with `R` rows from `row` on, and returns `R`.
    ///
    /// The caller has checked that there are as many.
    #[allow(clippy::needless_range_loop, reason = "the indices have to be numbers that the compiler knows")]
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const P: usize>(
        &self,
        panel: usize,
        inputs: &[W::Input],
        row: usize,
        emit: &mut impl FnMut(usize, usize, &[W::Output; PANEL]),
    ) -> usize {
        let panel_bytes = self.panel_bytes();
        let mut sums = [[[W::Output::default(); PANEL]; P]; R];
        // SAFETY: the panels are inside the lines and the rows inside the inputs; the caller runs with the
        // instructions of `S`.
        unsafe {
            let weights = self.lines.as_ptr().cast::<u8>().add(panel * panel_bytes);
            let weights: [*const u8; P] = std::array::from_fn(|p| weights.add(p * panel_bytes));
            let inputs: [*const W::Input; R] =
                std::array::from_fn(|r| inputs.as_ptr().add((row + r) * self.stride()));
            let mut tile: [[[W::Sum<S>; 2]; P]; R] =
                std::array::from_fn(|r| [[W::start::<S>(inputs[r]); 2]; P]);
            // Several rows take so long that all of the next panel comes in the meantime. A single one has to
            // ask for what it needs soon.
            let ahead = if R == 1 { AHEAD } else { P * panel_bytes };
            for step in 0..self.steps {
                let inputs: [W::Splat<S>; R] =
                    std::array::from_fn(|r| W::splat::<S>(inputs[r].add(W::LEAD + step * W::STEP_INPUTS)));
                for p in 0..P {
                    let weights = weights[p].add(step * W::STEP_BYTES);
                    for line in 0..W::STEP_BYTES / 64 {
                        S::prefetch(weights.wrapping_add(ahead + line * 64));
                    }
                    let weights = [W::load::<S>(weights, 0), W::load::<S>(weights, 1)];
                    W::add_rows::<S, R, P>(&weights, &inputs, &mut tile, p);
                }
            }
            for r in 0..R {
                for p in 0..P {
                    for half in 0..2 {
                        let to = sums[r][p].as_mut_ptr().add(half * LANES);
                        W::store::<S>(to, tile[r][p][half]);
                    }
                }
            }
        }
        for p in 0..P {
            for (r, sums) in sums.iter().enumerate() {
                emit(panel + p, row + r, &sums[p]);
            }
        }
        R
    }
}
