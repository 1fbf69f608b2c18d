use calm_checkpoint::FeedForward;
use half::bf16;
use proptest::prelude::*;

use super::{matrix, name, numbers, processors};
use crate::elementwise::RmsNorm;
use crate::linear::{Linear, Output, Processor, WeightType, inverse};
use crate::simd::InstructionSet;
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

fn store(processor: &Processor, linear: &Linear, x: &[f32], outputs: usize, inputs: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len() / inputs * outputs];
    linear.run(processor, None, x, Output::Store(&mut out));
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Products have any shape and any number of rows.
    ///
    /// Inputs of 8-bit weights are rounded to 2^-15 of the largest, so that 1e-4 is ten times too much.
    #[test]
    fn products_are_those_of_plain_sums(outputs in 1_usize..150, inputs in 1_usize..90, rows in 1_usize..12, seed: u64) {
        let (weights, x) = (matrix(outputs, inputs, seed), numbers(rows * inputs, !seed));
        for &weight_type in WeightType::ALL {
            let linear = Linear::new(std::slice::from_ref(&weights), weight_type);
            let expected = plain(&rounded(&weights, weight_type), &x);
            for processor in processors() {
                let found = store(&processor, &linear, &x, outputs, inputs);
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
    fn rows_do_not_depend_on_their_batch(outputs in 1_usize..100, inputs in 1_usize..70, rows in 2_usize..20, seed: u64) {
        let (weights, x) = (matrix(outputs, inputs, seed), numbers(rows * inputs, !seed));
        for &weight_type in WeightType::ALL {
            let linear = Linear::new(std::slice::from_ref(&weights), weight_type);
            let processors = processors();
            for processor in &processors {
                let together = store(processor, &linear, &x, outputs, inputs);
                for (x, expected) in x.chunks_exact(inputs).zip(together.chunks_exact(outputs)) {
                    let alone = store(processor, &linear, x, outputs, inputs);
                    prop_assert_eq!(&alone[..], expected, "{}", name(processor));
                }
                // Plain arrays round the product and the sum separately.
                let alike = |other: &&Processor| {
                    (other.set == InstructionSet::Portable) == (processor.set == InstructionSet::Portable)
                };
                let other = processors.iter().find(alike).expect("itself");
                prop_assert_eq!(&together, &store(other, &linear, &x, outputs, inputs));
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
        let single = Linear::new(std::slice::from_ref(&gate), WeightType::F32);
        let double = Linear::gated(&gate, &linear, WeightType::F32);
        for processor in processors() {
            let check = |expected: &[f64], linear: &Linear, output: fn(&mut [f32]) -> Output<'_>| {
                let mut out = before.clone();
                linear.run(&processor, Some(&norm), &x, output(&mut out));
                for (found, expected) in out.iter().zip(expected) {
                    assert!(
                        (f64::from(*found) - expected).abs() < 2e-5,
                        "{}: {found}, not {expected}",
                        name(&processor)
                    );
                }
            };
            check(&gates, &single, |out| Output::Store(out));
            check(&added, &single, |out| Output::Add(out));
            check(&relu, &single, |out| Output::Activate(FeedForward::Relu, out));
            check(&gated(&gelu), &double, |out| Output::Activate(FeedForward::GatedGelu, out));
            check(&gated(&silu), &double, |out| Output::Activate(FeedForward::GatedSilu, out));
        }
    }
}

#[test]
fn matrices_one_below_the_other_are_one() {
    let (k, v) = (matrix(40, 16, 1), matrix(24, 16, 2));
    let both = Linear::new(&[k.clone(), v.clone()], WeightType::F32);
    let x = numbers(16, 3);
    let expected = [plain(&k, &x), plain(&v, &x)].concat();
    let found = store(&processors()[0], &both, &x, 64, 16);
    assert!(found.iter().zip(&expected).all(|(found, expected)| (f64::from(*found) - expected).abs() < 1e-5));
}

/// A sum of 32 bits would overflow first for rows of the largest weights with inputs of the largest size.
#[test]
fn sums_of_8_bit_products_do_not_overflow() {
    for inputs in [1024, 2048, 10240] {
        let weights = Stored::from_rows(vec![1.0; inputs], inputs);
        let linear = Linear::new(&[weights], WeightType::Int8);
        for processor in processors() {
            let found = store(&processor, &linear, &vec![-3.0; inputs], 1, inputs)[0];
            let expected = -3.0 * inputs as f32;
            assert!((found - expected).abs() < 1e-4 * expected.abs(), "{}: {found}", name(&processor));
        }
    }
}
