//! Products of blocks against what their formats say, number by number.

use calm_gguf::TensorType;
use half::f16;
use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{name, numbers, processors};
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

fn store(processor: &Processor, linear: &Linear, x: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN];
    linear.run(processor, Input::Rows(x), Output::Store(&mut out));
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Inputs are rounded to 2^-15 of the largest of their block.
    #[test]
    fn products_are_those_of_plain_sums(outputs in 1_usize..300, blocks in 1_usize..20, rows in 1_usize..40, seed: u64) {
        for tensor_type in TYPES {
            let inputs = blocks * tensor_type.block_len();
            let (weights, x) = (matrix(tensor_type, outputs, inputs, seed), numbers(rows * inputs, !seed));
            let all = weights.to_vec();
            let linear = Linear::new(&weights, Packing::AsStored);
            for processor in processors() {
                let found = store(&processor, &linear, &x);
                let rows = x.chunks_exact(inputs);
                let pairs = rows.flat_map(|x| all.chunks_exact(inputs).map(move |weights| (weights, x)));
                for (found, (weights, x)) in found.iter().zip(pairs) {
                    let products = || weights.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                    let (expected, size) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
                    let difference = (f64::from(*found) - expected).abs();
                    prop_assert!(
                        difference < 5e-5 * size,
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
