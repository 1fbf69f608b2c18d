use calm_checkpoint::{FeedForward, WeightType};
use half::bf16;
use proptest::prelude::*;

use super::{matrix, name, numbers, processors};
use crate::elementwise::RmsNorm;
use crate::int8::inverse;
use crate::linear::{Input, Linear, Output, Packing, Processor};
use crate::panels::PANEL;
use crate::simd::InstructionSet;
use crate::states::States;
use crate::weights::Stored;

/// Computes a product as it is written down.
fn plain(weights: &Stored, x: &[f32]) -> Vec<f64> {
    let (weights, width) = (weights.to_vec(), weights.columns());
    let dot = |row: &[f32], x: &[f32]| row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
    x.chunks_exact(width)
        .flat_map(|x| weights.chunks_exact(width).map(move |row| dot(row, x)).collect::<Vec<f64>>())
        .collect()
}

/// Rounds weights as a weight type does.
fn rounded(weights: &Stored, weight_type: WeightType) -> Stored {
    let mut numbers = weights.to_vec();
    match weight_type {
        WeightType::F32 => {}
        WeightType::Bf16 => numbers.iter_mut().for_each(|w| *w = bf16::from_f32(*w).to_f32()),
        WeightType::Int8 => {
            for row in numbers.chunks_exact_mut(weights.columns()) {
                let step = row.iter().fold(0.0_f32, |largest, w| largest.max(w.abs())) / 127.0;
                row.iter_mut().for_each(|w| *w = (*w * inverse(step)).round() * step);
            }
        }
    }
    Stored::from_rows(numbers, weights.columns())
}

fn store(processor: &Processor, linear: &Linear, x: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN];
    linear.run(processor, Input::Rows(x), Output::Store(&mut out));
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Products have any shape and any number of rows.
    ///
    /// Inputs of 8-bit weights are rounded to 2^-14 of the largest, so that 1e-4 is more than enough.
    #[test]
    fn products_are_those_of_plain_sums(outputs in 1_usize..150, inputs in 1_usize..90, rows in 1_usize..12, seed: u64) {
        let (weights, x) = (matrix(outputs, inputs, seed), numbers(rows * inputs, !seed));
        for &weight_type in WeightType::ALL {
            let linear = Linear::new(&weights, Packing::As(weight_type));
            let expected = plain(&rounded(&weights, weight_type), &x);
            for processor in processors() {
                let found = store(&processor, &linear, &x);
                for (found, expected) in found.iter().zip(&expected) {
                    let difference = (f64::from(*found) - expected).abs();
                    prop_assert!(difference < 1e-4 * inputs as f64, "{}: {found}, not {expected}", name(&processor));
                }
            }
        }
    }

    /// A row's result is the same to the last bit with any other rows and on any number of threads.
    ///
    /// It is also the same on all instruction sets that multiply and add in one rounding.
    #[test]
    fn rows_do_not_depend_on_their_batch(outputs in 1_usize..100, inputs in 1_usize..70, rows in 2_usize..50, seed: u64) {
        let (weights, x) = (matrix(outputs, inputs, seed), numbers(rows * inputs, !seed));
        for &weight_type in WeightType::ALL {
            let linear = Linear::new(&weights, Packing::As(weight_type));
            let processors = processors();
            for processor in &processors {
                let together = store(processor, &linear, &x);
                for (x, expected) in x.chunks_exact(inputs).zip(together.chunks_exact(outputs)) {
                    let alone = store(processor, &linear, x);
                    prop_assert_eq!(&alone[..], expected, "{}", name(processor));
                }
                // Plain arrays round the product and the sum separately.
                let alike = |other: &&Processor| {
                    (other.set == InstructionSet::Portable) == (processor.set == InstructionSet::Portable)
                };
                let other = processors.iter().find(alike).expect("itself");
                prop_assert_eq!(&together, &store(other, &linear, &x));
            }
        }
    }
}

#[test]
fn what_is_around_a_product_is_computed_with_it() {
    const INPUTS: usize = 48;
    for (outputs, rows) in [(32, 1), (70, 1), (70, 5), (1, 2)] {
        let x = numbers(rows * INPUTS, 1);
        let norm = RmsNorm { weight: numbers(INPUTS, 2), epsilon: 1e-6, scale: 0.5 };
        let normed: Vec<f32> = x
            .chunks_exact(INPUTS)
            .flat_map(|x| {
                let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / INPUTS as f64;
                let factor = 0.5 / (mean + 1e-6).sqrt();
                x.iter()
                    .zip(&norm.weight)
                    .map(|(x, w)| (f64::from(*x) * factor * f64::from(*w)) as f32)
                    .collect::<Vec<_>>()
            })
            .collect();
        let (gate, linear) = (matrix(outputs, INPUTS, 3), matrix(outputs, INPUTS, 4));
        let (gates, linears) = (plain(&gate, &normed), plain(&linear, &normed));
        let gelu = |x: f64| 0.5 * x * (1.0 + (0.797_884_560_8 * (x + 0.044_715 * x.powi(3))).tanh());
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let gated =
            |f: &dyn Fn(f64) -> f64| gates.iter().zip(&linears).map(|(g, l)| f(*g) * l).collect::<Vec<_>>();
        let relu: Vec<f64> = gates.iter().map(|g| g.max(0.0)).collect();
        let before = numbers(rows * outputs, 5);
        let added: Vec<f64> = before.iter().zip(&gates).map(|(before, g)| f64::from(*before) + g).collect();
        let single = Linear::new(&gate, Packing::As(WeightType::F32));
        let double = Linear::gated(&gate, &linear, Packing::As(WeightType::F32));
        for processor in processors() {
            // The states lie in reverse order among others.
            let slots: Vec<usize> = (0..rows).rev().map(|row| 2 * row + 1).collect();
            let scattered = |of_rows: &[f32], width: usize| {
                let mut all = vec![f32::NAN; 2 * rows * width];
                for (slot, row) in slots.iter().zip(of_rows.chunks_exact(width)) {
                    all[slot * width..][..width].copy_from_slice(row);
                }
                all
            };
            let mut inputs = scattered(&x, INPUTS);
            let states = States::new(&mut inputs, INPUTS, &slots);
            let input = Input::Normed(&norm, &states);
            let compare = |expected: &[f64], found: &[f32]| {
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(expected) {
                    let difference = (f64::from(*found) - expected).abs();
                    assert!(difference < 2e-5, "{}: {found}, not {expected}", name(&processor));
                }
            };
            let check = |expected: &[f64], linear: &Linear, output: fn(&mut Vec<f32>) -> Output<'_, '_>| {
                let mut out = before.clone();
                linear.run(&processor, input, output(&mut out));
                compare(expected, &out);
            };
            check(&gates, &single, |out| Output::Store(out));
            check(&relu, &single, |out| Output::Activate(FeedForward::Relu, out));
            check(&gated(&gelu), &double, |out| Output::Activate(FeedForward::GatedGelu, out));
            check(&gated(&silu), &double, |out| Output::Activate(FeedForward::GatedSilu, out));
            let mut residual = scattered(&before, outputs);
            let mut sums = States::new(&mut residual, outputs, &slots);
            single.run(&processor, input, Output::Add(&mut sums));
            compare(&added, &Vec::from_iter(sums.rows()).concat());
            // What lies between them is nobody's business.
            assert!(residual.chunks_exact(outputs).step_by(2).flatten().all(|x| x.is_nan()));
        }
    }
}

#[test]
fn parallel_matrices_are_one_product_and_its_end_is_one_too() {
    for height in [PANEL, 24, 40] {
        let [q, k, v] = [1, 2, 3].map(|seed| matrix(height, 16, seed));
        let x = numbers(2 * 16, 4);
        for &weight_type in WeightType::ALL {
            let all = Linear::parallel(&[q.clone(), k.clone(), v.clone()], Packing::As(weight_type));
            let end = all.without_first();
            for processor in processors() {
                let of_each = [&q, &k, &v]
                    .map(|one| store(&processor, &Linear::new(one, Packing::As(weight_type)), &x));
                let check = |linear: &Linear, expected: &[Vec<f32>]| {
                    let found = store(&processor, linear, &x);
                    for (row, found) in found.chunks_exact(linear.outputs()).enumerate() {
                        let parts = found.chunks_exact(height.next_multiple_of(PANEL));
                        assert_eq!(parts.len(), expected.len());
                        for (found, expected) in parts.zip(expected) {
                            assert_eq!(found[..height], expected[row * height..][..height]);
                        }
                    }
                };
                check(&all, &of_each);
                check(&end, &of_each[1..]);
            }
        }
    }
}

/// A sum of 32 bits would overflow first for rows of the largest weights with inputs of the largest size.
#[test]
fn sums_of_8_bit_products_do_not_overflow() {
    for inputs in [1024, 2048, 10240] {
        let weights = Stored::from_rows(vec![1.0; inputs], inputs);
        let linear = Linear::new(&weights, Packing::As(WeightType::Int8));
        for processor in processors() {
            let found = store(&processor, &linear, &vec![-3.0; inputs])[0];
            let expected = -3.0 * inputs as f32;
            assert!((found - expected).abs() < 1e-4 * expected.abs(), "{}: {found}", name(&processor));
        }
    }
}

/// Integers have no infinity, and rounding makes one of what is no number.
#[test]
fn an_input_that_is_not_finite_is_not_lost_in_8_bits() {
    let weights = matrix(PANEL, 40, 3);
    let linear = Linear::new(&weights, Packing::As(WeightType::Int8));
    for processor in processors() {
        for lost in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in 0..40 {
                let mut inputs = numbers(2 * 40, 4);
                inputs[place] = lost;
                let found = store(&processor, &linear, &inputs);
                let (of_lost, of_other) = found.split_at(PANEL);
                assert!(of_lost.iter().all(|x| !x.is_finite()), "{} {lost} {place}", name(&processor));
                assert!(of_other.iter().all(|x| x.is_finite()), "{} {lost} {place}", name(&processor));
            }
        }
    }
}
