//! 32 values that share a scale, whatever the type of their tensor (ggml/src/ggml-common.h has the layouts,
//! `dequantize_row_*` of ggml/src/ggml-quants.c the arithmetic, in the same order of operations).

use half::f16;

use crate::TensorType;

/// Number of values of a block that share a scale.
const LEN: usize = Block::LEN;

/// 32 values: `(quant - zero) * scale`, to which the minimum is added if there is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Block {
    /// Integers of 4, 5, 6 or 8 bits, of which the latter two have a sign.
    pub quants: [i8; Block::LEN],
    /// The integer that stands for 0.
    pub zero: i8,
    /// The scale of either half.
    pub scales: [f32; 2],
    /// What is added to each value, in types that have such a number.
    pub minimum: Option<f32>,
}

impl Block {
    /// Number of values. Blocks of 256 in a file are read as eight of these.
    pub const LEN: usize = 32;

    /// Reads the values from `32 * index` on of a row.
    ///
    /// # Panics
    /// The type stores its values one by one, or the row has no such block.
    pub fn of(tensor_type: TensorType, row: &[u8], index: usize) -> Self {
        let size = tensor_type.block_bytes();
        let of_block = tensor_type.block_len() / LEN;
        let bytes = &row[index / of_block * size..][..size];
        let sub = index % of_block;
        match tensor_type {
            TensorType::Q4_0 => Self::simple(nibbles(&bytes[2..]), 8, f16_at(bytes, 0), None),
            TensorType::Q4_1 => {
                Self::simple(nibbles(&bytes[4..]), 0, f16_at(bytes, 0), Some(f16_at(bytes, 2)))
            }
            TensorType::Q5_0 => {
                let quants = with_fifth_bits(nibbles(&bytes[6..]), &bytes[2..6]);
                Self::simple(quants, 16, f16_at(bytes, 0), None)
            }
            TensorType::Q5_1 => {
                let quants = with_fifth_bits(nibbles(&bytes[8..]), &bytes[4..8]);
                Self::simple(quants, 0, f16_at(bytes, 0), Some(f16_at(bytes, 2)))
            }
            TensorType::Q8_0 => {
                Self::simple(std::array::from_fn(|i| bytes[2 + i] as i8), 0, f16_at(bytes, 0), None)
            }
            TensorType::Q4K => {
                let quants = half_bytes(&bytes[16..], sub);
                Self::of_super_block(quants, bytes, sub)
            }
            TensorType::Q5K => {
                let high = &bytes[16..48];
                let quants = half_bytes(&bytes[48..], sub);
                let quants = std::array::from_fn(|i| quants[i] | ((high[i] >> sub & 1) as i8 * 16));
                Self::of_super_block(quants, bytes, sub)
            }
            TensorType::Q6K => Self::of_six_bits(bytes, sub),
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 => {
                panic!("{tensor_type} has no blocks")
            }
        }
    }

    fn simple(quants: [i8; LEN], zero: i8, scale: f32, minimum: Option<f32>) -> Self {
        Block { quants, zero, scales: [scale; 2], minimum }
    }

    /// A sub-block of Q4_K or Q5_K, whose scale and minimum have six bits each.
    fn of_super_block(quants: [i8; LEN], bytes: &[u8], sub: usize) -> Self {
        let packed = &bytes[4..16];
        let (scale, minimum) = match sub {
            0..4 => (packed[sub] & 63, packed[sub + 4] & 63),
            _ => (
                packed[sub + 4] & 15 | packed[sub - 4] >> 6 << 4,
                packed[sub + 4] >> 4 | packed[sub] >> 6 << 4,
            ),
        };
        let (scale, minimum) = (f16_at(bytes, 0) * f32::from(scale), f16_at(bytes, 2) * f32::from(minimum));
        Self::simple(quants, 0, scale, Some(-minimum))
    }

    /// A sub-block of Q6_K.
    fn of_six_bits(bytes: &[u8], sub: usize) -> Self {
        let (half, quarter) = (sub / 4, sub % 4);
        let low = &bytes[half * 64 + quarter % 2 * 32..];
        let high = &bytes[128 + half * 32..];
        let quants = std::array::from_fn(|i| {
            let low = low[i] >> (quarter / 2 * 4) & 15;
            let high = high[i] >> (2 * quarter) & 3;
            (low | high << 4) as i8 - 32
        });
        let scale = |index: usize| f16_at(bytes, 208) * f32::from(bytes[192 + 2 * sub + index] as i8);
        Block { quants, zero: 0, scales: [scale(0), scale(1)], minimum: None }
    }

    /// Computes the values.
    pub fn values(&self, to: &mut [f32; Block::LEN]) {
        for (i, (to, quant)) in to.iter_mut().zip(self.quants).enumerate() {
            *to = self.scales[i / (LEN / 2)] * f32::from(quant - self.zero);
        }
        if let Some(minimum) = self.minimum {
            to.iter_mut().for_each(|to| *to += minimum);
        }
    }
}

fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The first half of a block is in the lower bits of 16 bytes, the second one in the upper bits.
fn nibbles(bytes: &[u8]) -> [i8; LEN] {
    std::array::from_fn(|i| (bytes[i % 16] >> (i / 16 * 4) & 15) as i8)
}

fn with_fifth_bits(quants: [i8; LEN], bits: &[u8]) -> [i8; LEN] {
    std::array::from_fn(|i| quants[i] | ((bits[i / 8] >> (i % 8) & 1) as i8 * 16))
}

/// Two sub-blocks share 32 bytes.
fn half_bytes(bytes: &[u8], sub: usize) -> [i8; LEN] {
    std::array::from_fn(|i| (bytes[sub / 2 * 32 + i] >> (sub % 2 * 4) & 15) as i8)
}
