use crate::{Block, GgmlType};

/// How a tensor's values are stored: one by one, or in blocks of a few bits for each value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
pub enum TensorType {
    /// 32 bits.
    F32,
    /// 16 bits, with 5 of exponent.
    F16,
    /// 16 bits, the upper half of an `F32`.
    Bf16,
    /// 4 bits and a scale for 32 values.
    Q4_0,
    /// 4 bits, a scale and a least value for 32 values.
    Q4_1,
    /// 5 bits and a scale for 32 values.
    Q5_0,
    /// 5 bits, a scale and a least value for 32 values.
    Q5_1,
    /// 8 bits and a scale for 32 values.
    Q8_0,
    /// 4 bits; a scale and a least value of 6 bits each for 32 values, and a scale of either for 256.
    Q4K,
    /// 5 bits; a scale and a least value of 6 bits each for 32 values, and a scale of either for 256.
    Q5K,
    /// 6 bits; a scale of 8 bits for 16 values, and one for 256.
    Q6K,
}

calm_names::names!(TensorType, "type of tensors", {
    F32 => "F32", F16 => "F16", Bf16 => "BF16", Q4_0 => "Q4_0", Q4_1 => "Q4_1", Q5_0 => "Q5_0", Q5_1 => "Q5_1",
    Q8_0 => "Q8_0", Q4K => "Q4_K", Q5K => "Q5_K", Q6K => "Q6_K",
});

impl TensorType {
    /// The number that stands for the type in files.
    pub const fn ggml_type(self) -> GgmlType {
        GgmlType(match self {
            TensorType::F32 => 0,
            TensorType::F16 => 1,
            TensorType::Q4_0 => 2,
            TensorType::Q4_1 => 3,
            TensorType::Q5_0 => 6,
            TensorType::Q5_1 => 7,
            TensorType::Q8_0 => 8,
            TensorType::Q4K => 12,
            TensorType::Q5K => 13,
            TensorType::Q6K => 14,
            TensorType::Bf16 => 30,
        })
    }

    /// How many values a block has.
    pub const fn block_len(self) -> usize {
        match self {
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 => 1,
            TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Q5_0 | TensorType::Q5_1 | TensorType::Q8_0 => {
                32
            }
            TensorType::Q4K | TensorType::Q5K | TensorType::Q6K => 256,
        }
    }

    /// How many bytes a block has.
    pub const fn block_bytes(self) -> usize {
        match self {
            TensorType::F32 => 4,
            TensorType::F16 | TensorType::Bf16 => 2,
            TensorType::Q4_0 => 18,
            TensorType::Q4_1 => 20,
            TensorType::Q5_0 => 22,
            TensorType::Q5_1 => 24,
            TensorType::Q8_0 => 34,
            TensorType::Q4K => 144,
            TensorType::Q5K => 176,
            TensorType::Q6K => 210,
        }
    }

    /// How many bytes a row of so many values has, which are a multiple of [`block_len`](Self::block_len).
    pub const fn row_bytes(self, columns: usize) -> usize {
        columns / self.block_len() * self.block_bytes()
    }

    /// Writes the values of whole blocks, as ggml's reference computes them.
    ///
    /// # Panics
    /// `bytes` are no whole blocks, or `to` has not as many places as these have values.
    pub fn dequantise(self, bytes: &[u8], to: &mut [f32]) {
        assert!(
            bytes.len().is_multiple_of(self.block_bytes())
                && to.len() == bytes.len() / self.block_bytes() * self.block_len(),
            "{} bytes of {self} are not {} values",
            bytes.len(),
            to.len()
        );
        match self {
            TensorType::F32 => single(bytes, to, f32::from_le_bytes),
            TensorType::F16 => single(bytes, to, |b| half::f16::from_le_bytes(b).to_f32()),
            TensorType::Bf16 => single(bytes, to, |b| half::bf16::from_le_bytes(b).to_f32()),
            _ => {
                for (index, to) in to.as_chunks_mut().0.iter_mut().enumerate() {
                    Block::of(self, bytes, index).values(to);
                }
            }
        }
    }
}

/// Values that are stored one by one.
fn single<const BYTES: usize>(bytes: &[u8], to: &mut [f32], value: impl Fn([u8; BYTES]) -> f32) {
    for (to, bytes) in to.iter_mut().zip(bytes.as_chunks().0) {
        *to = value(*bytes);
    }
}
