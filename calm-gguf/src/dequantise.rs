//! The values of a block of each type (ggml/src/ggml-common.h has the layouts, `dequantize_row_*` of
//! ggml/src/ggml-quants.c the arithmetic, in the same order of operations).

use half::f16;

/// Values that are stored one by one.
pub(crate) fn single<const BYTES: usize>(bytes: &[u8], to: &mut [f32], value: impl Fn([u8; BYTES]) -> f32) {
    for (to, bytes) in to.iter_mut().zip(bytes.as_chunks().0) {
        *to = value(*bytes);
    }
}

/// Values that are stored in blocks.
pub(crate) fn blocks<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    to: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; VALUES]),
) {
    for (to, bytes) in to.as_chunks_mut().0.iter_mut().zip(bytes.as_chunks().0) {
        block(bytes, to);
    }
}

/// A number of 16 bits at a place in a block.
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn low(byte: u8) -> u8 {
    byte & 15
}

fn high(byte: u8) -> u8 {
    byte >> 4
}

/// Scale, then values less 8: the lower halves of all bytes, then the upper ones.
pub(crate) fn q4_0(block: &[u8; 18], to: &mut [f32; 32]) {
    let scale = f16_at(block, 0);
    for (j, &byte) in block[2..].iter().enumerate() {
        to[j] = f32::from(low(byte) as i8 - 8) * scale;
        to[j + 16] = f32::from(high(byte) as i8 - 8) * scale;
    }
}

/// Scale, least value, then values.
pub(crate) fn q4_1(block: &[u8; 20], to: &mut [f32; 32]) {
    let (scale, least) = (f16_at(block, 0), f16_at(block, 2));
    for (j, &byte) in block[4..].iter().enumerate() {
        to[j] = f32::from(low(byte)) * scale + least;
        to[j + 16] = f32::from(high(byte)) * scale + least;
    }
}

/// Values of 5 bits: four bytes of fifth bits, then the lower four.
fn five_bits(block: &[u8]) -> [u8; 32] {
    let fifth = u32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    let mut values = [0; 32];
    for (j, &byte) in block[4..20].iter().enumerate() {
        values[j] = low(byte) | ((fifth >> j & 1) << 4) as u8;
        values[j + 16] = high(byte) | ((fifth >> (j + 16) & 1) << 4) as u8;
    }
    values
}

/// Scale, then values less 16.
pub(crate) fn q5_0(block: &[u8; 22], to: &mut [f32; 32]) {
    let scale = f16_at(block, 0);
    for (to, value) in to.iter_mut().zip(five_bits(&block[2..])) {
        *to = f32::from(value as i8 - 16) * scale;
    }
}

/// Scale, least value, then values.
pub(crate) fn q5_1(block: &[u8; 24], to: &mut [f32; 32]) {
    let (scale, least) = (f16_at(block, 0), f16_at(block, 2));
    for (to, value) in to.iter_mut().zip(five_bits(&block[4..])) {
        *to = f32::from(value) * scale + least;
    }
}

/// Scale, then values.
pub(crate) fn q8_0(block: &[u8; 34], to: &mut [f32; 32]) {
    let scale = f16_at(block, 0);
    for (to, &value) in to.iter_mut().zip(&block[2..]) {
        *to = f32::from(value as i8) * scale;
    }
}

/// The scale and the least value of 6 bits each of a 32nd of a block, from the 12 bytes that have them all.
fn six_bits(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, least) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (low(packed[j + 4]) | packed[j - 4] >> 6 << 4, high(packed[j + 4]) | packed[j] >> 6 << 4)
    };
    (f32::from(scale), f32::from(least))
}

/// Scale of scales, scale of least values, these, then values: 32 lower halves, the upper ones, and so on.
pub(crate) fn q4_k(block: &[u8; 144], to: &mut [f32; 256]) {
    let (scale, least) = (f16_at(block, 0), f16_at(block, 2));
    for (j, to) in to.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (of_32, least_of_32) = six_bits(&block[4..16], j);
        let (scale, least) = (scale * of_32, least * least_of_32);
        let bytes = &block[16 + j / 2 * 32..][..32];
        for (to, byte) in to.iter_mut().zip(bytes) {
            let value = if j % 2 == 0 { low(*byte) } else { high(*byte) };
            *to = scale * f32::from(value) - least;
        }
    }
}

/// As `q4_k`, with 32 bytes of fifth bits before the values: one bit of each byte for each 32 values.
pub(crate) fn q5_k(block: &[u8; 176], to: &mut [f32; 256]) {
    let (scale, least) = (f16_at(block, 0), f16_at(block, 2));
    for (j, to) in to.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (of_32, least_of_32) = six_bits(&block[4..16], j);
        let (scale, least) = (scale * of_32, least * least_of_32);
        let bytes = &block[48 + j / 2 * 32..][..32];
        for ((to, byte), fifth) in to.iter_mut().zip(bytes).zip(&block[16..48]) {
            let value = if j % 2 == 0 { low(*byte) } else { high(*byte) };
            *to = scale * f32::from(value | (fifth >> j & 1) << 4) - least;
        }
    }
}

/// The lower 4 bits, the upper 2, scales of 16 values each, and the scale of these last.
pub(crate) fn q6_k(block: &[u8; 210], to: &mut [f32; 256]) {
    let scale = f16_at(block, 208);
    for (half, to) in to.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let (lower, upper) = (&block[half * 64..][..64], &block[128 + half * 32..][..32]);
        let scales = &block[192 + half * 8..][..8];
        for (i, to) in to.iter_mut().enumerate() {
            // Four runs of 32: the lower halves of 64 bytes, then their upper halves.
            let (run, l) = (i / 32, i % 32);
            let byte = lower[i % 64];
            let four = if run < 2 { low(byte) } else { high(byte) };
            let value = (four | (upper[l] >> (2 * run) & 3) << 4) as i8 - 32;
            *to = scale * f32::from(scales[i / 16] as i8) * f32::from(value);
        }
    }
}
