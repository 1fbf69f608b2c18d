//! Products of blocks against what their formats say, number by number.

use calm_gguf::TensorType;
use half::f16;
use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{name, numbers, processors};
use crate::blocks::BLOCK;
use crate::linear::{Input, Linear, Output, Packing, Processor};
use crate::simd::InstructionSet;
use crate::weights::Stored;

const TYPES: [TensorType; 8] = [
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q8_0,
    TensorType::Q4K,
    TensorType::Q5K,
    TensorType::Q6K,
];

/// Draws a matrix of blocks of any bits, whose scales are numbers of about 0.01.
fn matrix(tensor_type: TensorType, rows: usize, columns: usize, seed: u64) -> Stored {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let size = tensor_type.block_bytes();
    let mut bytes = vec![0; rows * tensor_type.row_bytes(columns)];
    random.fill_bytes(&mut bytes);
    for block in bytes.chunks_exact_mut(size) {
        let scales: &[usize] = match tensor_type {
            TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4K | TensorType::Q5K => &[0, 2],
            TensorType::Q6K => &[208],
            _ => &[0],
        };
        for &at in scales {
            let scale = f16::from_f32((random.random::<f32>() - 0.5) * 0.02);
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        if tensor_type == TensorType::Q8_0 {
            block[2..].iter_mut().filter(|quant| **quant == 128).for_each(|quant| *quant = 0);
        }
    }
    Stored::from_blocks(tensor_type, bytes, columns)
}

/// What 8-bit blocks of inputs make of some numbers.
fn rounded(x: &[f32]) -> Vec<f64> {
    let of_block = |x: &[f32]| {
        let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let step = f64::from(f16::from_f32(largest / 127.0).to_f32());
        let quant = |x: &f32| f64::from((x * (127.0 / largest)).round_ties_even()) * step;
        x.iter().map(quant).collect::<Vec<_>>()
    };
    x.chunks_exact(BLOCK).flat_map(of_block).collect()
}

fn store(processor: &Processor, linear: &Linear, x: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN];
    linear.run(processor, Input::Rows(x), Output::Store(&mut out));
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Sums of products of what both sides stand for, but for the rounding of a block's sum of inputs, which
    /// has 11 bits.
    #[test]
    fn products_are_those_of_plain_sums(outputs in 1_usize..100, blocks in 1_usize..3, rows in 1_usize..12, seed: u64) {
        for tensor_type in TYPES {
            let inputs = blocks * tensor_type.block_len();
            let (weights, x) = (matrix(tensor_type, outputs, inputs, seed), numbers(rows * inputs, !seed));
            let (all, x_rounded) = (weights.to_vec(), rounded(&x));
            let linear = Linear::new(&weights, Packing::AsStored);
            for processor in processors() {
                let found = store(&processor, &linear, &x);
                let rows = x_rounded.chunks_exact(inputs);
                let pairs = rows.flat_map(|x| all.chunks_exact(inputs).map(move |weights| (weights, x)));
                for (found, (weights, x)) in found.iter().zip(pairs) {
                    let products = || weights.iter().zip(x).map(|(&w, x)| f64::from(w) * x);
                    let (expected, size) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
                    let difference = (f64::from(*found) - expected).abs();
                    prop_assert!(
                        difference < 5e-4 * size,
                        "{tensor_type:?} {}: {found}, not {expected}",
                        name(&processor)
                    );
                }
            }
        }
    }

    /// Packing loses nothing.
    #[test]
    fn packed_rows_are_those_of_the_file(rows in 1_usize..70, blocks in 1_usize..3, seed: u64) {
        for tensor_type in TYPES {
            let columns = blocks * tensor_type.block_len();
            let weights = matrix(tensor_type, rows, columns, seed);
            let packed = weights.blocks().unwrap();
            let (mut found, mut expected) = (vec![0.0; columns], vec![0.0; columns]);
            for row in 0..rows {
                packed.read_row(row, &mut found);
                weights.read_row(row, &mut expected);
                prop_assert_eq!(&found, &expected, "{:?}", tensor_type);
            }
        }
    }

    #[test]
    fn rows_do_not_depend_on_their_batch(outputs in 1_usize..100, rows in 2_usize..30, seed: u64) {
        for tensor_type in TYPES {
            let inputs = tensor_type.block_len();
            let (weights, x) = (matrix(tensor_type, outputs, inputs, seed), numbers(rows * inputs, !seed));
            let linear = Linear::new(&weights, Packing::AsStored);
            let processors = processors();
            for processor in &processors {
                let together = store(processor, &linear, &x);
                for (x, expected) in x.chunks_exact(inputs).zip(together.chunks_exact(outputs)) {
                    prop_assert_eq!(&store(processor, &linear, x)[..], expected, "{}", name(processor));
                }
                let alike = |other: &&Processor| {
                    (other.set == InstructionSet::Portable) == (processor.set == InstructionSet::Portable)
                };
                let other = processors.iter().find(alike).expect("itself");
                prop_assert_eq!(&together, &store(other, &linear, &x));
            }
        }
    }
}

/// Integers have no infinity, and rounding makes one of what is no number.
#[test]
fn an_input_that_is_not_finite_is_not_lost_in_blocks() {
    for tensor_type in TYPES {
        let inputs = tensor_type.block_len();
        let linear = Linear::new(&matrix(tensor_type, 40, inputs, 3), Packing::AsStored);
        for processor in processors() {
            for lost in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = numbers(2 * inputs, 4);
                x[inputs / 2 + 1] = lost;
                let found = store(&processor, &linear, &x);
                assert!(found[..40].iter().all(|x| !x.is_finite()), "{tensor_type:?} {lost}");
                assert!(found[40..].iter().all(|x| x.is_finite()), "{tensor_type:?} {lost}");
            }
        }
    }
}

#[test]
#[ignore]
fn speed() {
    use crate::simd::InstructionSet;
    use crate::team::Team;
    for tensor_type in TYPES {
        for (rows, threads) in [(1, 1), (1, 2), (8, 2), (512, 2)] {
            for set in InstructionSet::available() {
                let inputs = 1536;
                let outputs = 49152 / 2;
                let linear = Linear::new(&matrix(tensor_type, outputs, inputs, 3), Packing::AsStored);
                let processor = Processor { team: Team::new(threads), set };
                let x = numbers(rows * inputs, 4);
                let mut out = Vec::new();
                let mut best = f64::MAX;
                for _ in 0..if rows == 1 { 15 } else { 3 } {
                    let start = std::time::Instant::now();
                    linear.run(&processor, Input::Rows(&x), Output::Store(&mut out));
                    best = best.min(start.elapsed().as_secs_f64());
                }
                let gb = linear.bytes() as f64 / 1e9;
                eprintln!(
                    "{tensor_type:?} rows {rows} threads {threads} {set:?}: {:.2} GB/s, {:.1} GMAC/s",
                    gb / best,
                    (inputs * outputs * rows) as f64 / best / 1e9
                );
                if set == InstructionSet::Avx2 {
                    break;
                }
            }
        }
    }
}
