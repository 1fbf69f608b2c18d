use calm_checkpoint::CacheType;
use half::{bf16, f16};
use proptest::prelude::*;

use super::{name, numbers, processors};
use crate::attention::{Heads, Query, attend};
use crate::caches::KeysValues;
use crate::linear::Processor;
use crate::simd::InstructionSet;

fn rounded(x: f32, cache_type: CacheType) -> f32 {
    match cache_type {
        CacheType::F32 => x,
        CacheType::F16 => f16::from_f32(x).to_f32(),
        CacheType::Bf16 => bf16::from_f32(x).to_f32(),
    }
}

/// One head of a query over keys and values, [positions, d_kv] each, as it is written down.
fn plain(q: &[f32], keys: &[f32], values: &[f32], scale: f32) -> Vec<f64> {
    let score = |key: &[f32]| {
        let products = q.iter().zip(key).map(|(&q, &k)| f64::from(q) * f64::from(k));
        (products.sum::<f64>() * f64::from(scale)).exp()
    };
    let weights: Vec<f64> = keys.chunks(q.len()).map(score).collect();
    let total: f64 = weights.iter().sum();
    let context = |i: usize| {
        let values = values.chunks(q.len()).map(|value| f64::from(value[i]));
        weights.iter().zip(values).map(|(weight, value)| weight * value).sum::<f64>() / total
    };
    (0..q.len()).map(context).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Contexts are those of the rounded keys and values, and the same to the last bit on any number of
    /// threads, beside any other queries, and on all instruction sets that multiply and add in one rounding.
    #[test]
    fn contexts_are_those_of_plain_sums(
        groups in 1_usize..4, group in 1_usize..4, d_kv in 1_usize..40, length in 1_usize..70, rows in 1_usize..7,
        seed: u64,
    ) {
        for &cache_type in CacheType::ALL {
            let heads = Heads { count: groups * group, group, d_kv, scale: 0.5, cache_type };
            let width = heads.kv_inner();
            let (keys, values) = (numbers(length * width, seed), numbers(length * width, !seed));
            let mut cache = KeysValues::new(heads);
            for (position, (key, value)) in keys.chunks(width).zip(values.chunks(width)).enumerate() {
                cache.write(position, key, value);
            }
            let q = numbers(rows * heads.inner(), seed ^ 1);
            let query = |q| Query { q, cache: &cache, length, bias: None };
            let queries: Vec<Query<'_>> = q.chunks(heads.inner()).map(query).collect();
            let run = |processor: &Processor, queries: &[Query<'_>]| {
                let mut contexts = Vec::new();
                attend(processor, heads, queries, &mut contexts);
                contexts
            };

            let [keys, values] = [keys, values].map(|table| {
                table.iter().map(|&x| rounded(x, cache_type)).collect::<Vec<f32>>()
            });
            let of_head = |table: &[f32], head: usize| -> Vec<f32> {
                table.chunks(width).flat_map(|row| row[head / group * d_kv..][..d_kv].to_vec()).collect()
            };
            let context = |(unit, q)| {
                let [keys, values] = [&keys, &values].map(|table| of_head(table, unit % heads.count));
                plain(q, &keys, &values, heads.scale)
            };
            let expected: Vec<f64> = q.chunks(d_kv).enumerate().flat_map(context).collect();

            let processors = processors();
            for processor in &processors {
                let together = run(processor, &queries);
                for (found, expected) in together.iter().zip(&expected) {
                    prop_assert!((f64::from(*found) - expected).abs() < 1e-5, "{found}, not {expected}");
                }
                for (query, expected) in queries.iter().zip(together.chunks(heads.inner())) {
                    let alone = run(processor, &[Query { ..*query }]);
                    prop_assert_eq!(&alone[..], expected, "{} {}", name(processor), cache_type);
                }
                // Plain arrays round the product and the sum separately.
                let alike = |other: &&Processor| {
                    (other.set == InstructionSet::Portable) == (processor.set == InstructionSet::Portable)
                };
                let other = processors.iter().find(alike).expect("itself");
                prop_assert_eq!(&together, &run(other, &queries));
            }
        }
    }
}

/// What does not fit into a type is no number afterwards, and neither is a context that needs it.
#[test]
fn numbers_that_do_not_fit_are_none() {
    for (cache_type, large) in
        [(CacheType::F16, 65520.0), (CacheType::F16, -1e6), (CacheType::Bf16, f32::MAX)]
    {
        let heads = Heads { count: 1, group: 1, d_kv: 2, scale: 1.0, cache_type };
        for (key, value) in [([large, 0.0], [0.0, 0.0]), ([0.0, 0.0], [large, large])] {
            let mut cache = KeysValues::new(heads);
            cache.write(0, &[1.0, 1.0], &[1.0, 1.0]);
            cache.write(1, &key, &value);
            for processor in processors() {
                let mut contexts = Vec::new();
                let query = Query { q: &[1e-6, 1.0], cache: &cache, length: 2, bias: None };
                attend(&processor, heads, &[query], &mut contexts);
                assert!(contexts.iter().all(|x| x.is_nan()), "{contexts:?}");
            }
        }
    }
}
