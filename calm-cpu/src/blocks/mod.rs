//! Weights in blocks of 32 with a scale of their own, as GGUF files have them, and products with inputs in
//! blocks of 15 bits.
//!
//! A panel has for each block of inputs the quants of its 32 outputs, four inputs of an output one beside the
//! other, then their scales, then their minima. These are the numbers of the file in another order: nothing
//! is rounded, and a row can be read again.

mod format;
mod inputs;

use std::ops::Range;

use calm_gguf::{Block as StoredBlock, TensorType};

use self::format::{Block, Format, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, read, write};
pub(crate) use self::inputs::{InputBlock, round_to_blocks};
use crate::panels::{PANEL, Panels};
use crate::simd::{InstructionSet, Simd, with_simd};

/// Number of inputs of a block.
pub(crate) const BLOCK: usize = StoredBlock::LEN;

/// A packed matrix of blocks.
pub(crate) enum Blocks {
    Q4_0(Panels<Block<Q4_0>>),
    Q4_1(Panels<Block<Q4_1>>),
    Q5_0(Panels<Block<Q5_0>>),
    Q5_1(Panels<Block<Q5_1>>),
    Q8_0(Panels<Block<Q8_0>>),
    Q4K(Panels<Block<Q4K>>),
    Q5K(Panels<Block<Q5K>>),
    Q6K(Panels<Block<Q6K>>),
}

/// Does the same with the panels of any format `$F`.
macro_rules! with_format {
    ($blocks:expr, $panels:ident, $F:ident => $body:expr) => {
        with_format!(@ $blocks, $panels, $F, $body, Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4K Q5K Q6K)
    };
    (@ $blocks:expr, $panels:ident, $F:ident, $body:expr, $($format:ident)*) => {
        match $blocks {
            $(Blocks::$format($panels) => {
                #[allow(dead_code, reason = "not all bodies name it")]
                type $F = $format;
                $body
            })*
        }
    };
}

impl Blocks {
    /// Packs a matrix with `inputs` columns, whose rows lie one after the other in `bytes`. Returns none if
    /// the type has no blocks, or if a quant is -128: none that a quantiser writes, and too large for
    /// products whose sums have 16 bits.
    pub(crate) fn pack(tensor_type: TensorType, inputs: usize, bytes: &[u8]) -> Option<Self> {
        match tensor_type {
            TensorType::Q4_0 => Some(Blocks::Q4_0(pack(tensor_type, inputs, bytes))),
            TensorType::Q4_1 => Some(Blocks::Q4_1(pack(tensor_type, inputs, bytes))),
            TensorType::Q5_0 => Some(Blocks::Q5_0(pack(tensor_type, inputs, bytes))),
            TensorType::Q5_1 => Some(Blocks::Q5_1(pack(tensor_type, inputs, bytes))),
            TensorType::Q8_0 if has_least_quant(bytes) => None,
            TensorType::Q8_0 => Some(Blocks::Q8_0(pack(tensor_type, inputs, bytes))),
            TensorType::Q4K => Some(Blocks::Q4K(pack(tensor_type, inputs, bytes))),
            TensorType::Q5K => Some(Blocks::Q5K(pack(tensor_type, inputs, bytes))),
            TensorType::Q6K => Some(Blocks::Q6K(pack(tensor_type, inputs, bytes))),
            _ => None,
        }
    }

    /// Number of panels.
    pub(crate) fn len(&self) -> usize {
        with_format!(self, panels, F => panels.len())
    }

    /// Number of bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        with_format!(self, panels, F => panels.bytes())
    }

    /// Number of rows of the matrix.
    pub(crate) fn outputs(&self) -> usize {
        with_format!(self, panels, F => panels.outputs())
    }

    /// Computes products of some panels with rows of inputs: [rows, blocks]. Calls `emit(panel, row, sums)`
    /// as [`Panels::product`] does.
    ///
    /// This is a function of its own, and not a part of each kernel that has a product: there are many
    /// formats, and the compiler would take minutes.
    pub(crate) fn product(
        &self,
        set: InstructionSet,
        range: Range<usize>,
        inputs: &[InputBlock],
        emit: Emit<'_>,
    ) {
        with_format!(self, panels, F => with_simd!(set, product_of(
            panels: &Panels<Block<F>>, range: Range<usize>, inputs: &[InputBlock], emit: Emit<'_>
        )))
    }

    /// Reads one row of the matrix: [inputs]
    pub(crate) fn read_row(&self, row: usize, to: &mut [f32]) {
        with_format!(self, panels, F => {
            for (step, to) in panels.steps_of(row / PANEL).zip(to.as_chunks_mut().0) {
                read::<F>(step, row % PANEL).values(to);
            }
        });
    }
}

/// Whether some quant of Q8_0 blocks is -128.
fn has_least_quant(bytes: &[u8]) -> bool {
    bytes.chunks_exact(TensorType::Q8_0.block_bytes()).any(|block| block[2..].contains(&128))
}

/// What takes the sums of a panel's row.
type Emit<'a> = &'a mut dyn FnMut(usize, usize, &[f32; PANEL]);

#[inline(always)]
fn product_of<S: Simd>(
    panels: &Panels<Block<impl Format>>,
    range: Range<usize>,
    inputs: &[InputBlock],
    emit: Emit<'_>,
) {
    panels.product::<S>(range, inputs, emit);
}

fn pack<F: Format>(tensor_type: TensorType, inputs: usize, bytes: &[u8]) -> Panels<Block<F>> {
    let row_bytes = tensor_type.row_bytes(inputs);
    Panels::pack_steps(bytes.len() / row_bytes, inputs, |output, step, to| {
        let row = &bytes[output * row_bytes..][..row_bytes];
        write::<F>(to, output % PANEL, &StoredBlock::of(tensor_type, row, step));
    })
}
