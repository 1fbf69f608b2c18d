//! Keys and values in 16 bits: another model, near that of f32, with the laws of all.

use calm_checkpoint::{CacheType, LoadOptions, Model};
use calm_core::{PolicySpec, Propagation};

use crate::logits::{distance, logits};
use crate::reference::local_errors::check_copies;
use crate::reference::shared::{cases, check_entries, check_speculation, checkpoint, decode_cases};
use crate::reference::{damaged, names, open};

const NARROW: [CacheType; 2] = [CacheType::F16, CacheType::Bf16];

fn options(cache_type: CacheType, threads: usize) -> LoadOptions {
    LoadOptions { cache_type, threads, ..LoadOptions::default() }
}

fn model(name: &str, cache_type: CacheType, threads: usize) -> Box<dyn Model> {
    open(&checkpoint(name), &options(cache_type, threads)).unwrap()
}

/// The reference networks have sharp attention, which makes much of a rounding of 2^-12 or 2^-9.
#[test]
fn logits_are_near_those_of_f32() {
    for name in names() {
        let exact = model(name, CacheType::F32, 1);
        for case in cases(name).iter().filter(|case| case.policy == PolicySpec::full()) {
            let expected = logits(&*exact, &case.input_ids, &case.tokens);
            for (cache_type, tolerance) in NARROW.into_iter().zip([0.02, 0.1]) {
                let narrow = model(name, cache_type, 1);
                let distance = distance(&logits(&*narrow, &case.input_ids, &case.tokens), &expected);
                assert!(0.0 < distance && distance < tolerance, "{name} {cache_type}: {distance}");
            }
        }
    }
}

/// To the last bit, whatever else is in a call.
#[test]
fn entries_are_the_same_in_any_calls() {
    for name in names() {
        for threads in [1, 3] {
            for cache_type in NARROW {
                check_entries(&*model(name, cache_type, threads), 0.0);
            }
        }
    }
}

#[test]
fn layers_have_copies_of_keys_and_values() {
    for cache_type in NARROW {
        let load = |folder: &std::path::Path| {
            open(folder, &options(cache_type, 2)).map_err(|error| error.to_string())
        };
        check_copies(&load, 0.0);
    }
}

#[test]
fn outputs_are_the_same_whatever_the_batch_and_threads() {
    for name in names() {
        let mut full = cases(name);
        full.retain(|case| case.policy == PolicySpec::full());
        let batch: Vec<_> = full.iter().collect();
        for cache_type in NARROW {
            let (one, three) = (model(name, cache_type, 1), model(name, cache_type, 3));
            let together = decode_cases(&*three, &batch, Propagation::Lazy);
            for (case, together) in full.iter().zip(together) {
                let alone = decode_cases(&*one, &[case], Propagation::Lazy).swap_remove(0);
                assert_eq!(alone.tokens, together.tokens, "{name} {cache_type}");
            }
            assert!(check_speculation(&*three, &full) > 100);
        }
    }
}

#[test]
fn a_fingerprint_names_what_keys_and_values_are_rounded_to() {
    for name in ["v1_1", "llama_gqa_tied"] {
        let exact = model(name, CacheType::F32, 1);
        for cache_type in NARROW {
            let narrow = model(name, cache_type, 1);
            assert_eq!(narrow.fingerprint(), format!("cache-{cache_type}-{}", exact.fingerprint()));
            assert_eq!(narrow.device(), format!("{} cache-{cache_type}", exact.device()));
        }
    }
}

#[test]
fn numbers_that_become_too_large_are_an_error_whatever_the_policy() {
    for cache_type in NARROW {
        for parts in [&damaged::T5, &damaged::LLAMA] {
            let load = |folder: &std::path::Path| {
                open(folder, &options(cache_type, 2)).map_err(|error| error.to_string())
            };
            damaged::check_too_large(parts, &load);
        }
    }
}
