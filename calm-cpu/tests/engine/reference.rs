//! Every decoding of the reference cases, alone and in batches of mixed lengths.

use std::path::Path;

use calm_checkpoint::{LoadOptions, Model};
use calm_core::{PolicySpec, Propagation, Token};
use calm_cpu::{Llama, T5, WeightType};

#[path = "../../../calm-model/tests/reference/beam_cases.rs"]
mod beam_cases;
#[path = "../../../calm-model/tests/reference/damaged.rs"]
pub(crate) mod damaged;
#[path = "../../../calm-model/tests/reference/local_errors.rs"]
pub(crate) mod local_errors;
#[path = "../../../calm-model/tests/reference/cases.rs"]
pub(crate) mod shared;

use self::shared::{
    F32_TOLERANCE, cases, check, check_alone, check_entries, check_in_batches, check_speculation, checkpoint,
    decode_cases,
};

/// Loads a folder in some type of weights.
fn load(folder: &Path, weight_type: WeightType) -> Result<Box<dyn Model>, String> {
    let options = LoadOptions { weight_type: Some(weight_type), threads: 2, ..LoadOptions::default() };
    open(folder, &options).map_err(|error| error.to_string())
}

fn model(name: &str, weight_type: WeightType, threads: usize) -> Box<dyn Model> {
    let options = LoadOptions { weight_type: Some(weight_type), threads, ..LoadOptions::default() };
    open(&checkpoint(name), &options).unwrap()
}

/// Loads a checkpoint whose network is the one that its configuration names.
pub(crate) fn open(folder: &Path, options: &LoadOptions) -> Result<Box<dyn Model>, calm_cpu::Error> {
    Ok(match calm_checkpoint::model_type(folder)?.as_str() {
        "llama" => Box::new(Llama::load(folder, options)?),
        _ => Box::new(T5::load(folder, options)?),
    })
}

/// All reference networks.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    shared::T5.into_iter().chain(shared::LLAMA)
}

#[test]
fn reference_cases_alone() {
    for name in names() {
        let model = model(name, WeightType::F32, 2);
        assert_eq!(model.unexpected(), &[] as &[String]);
        check_alone(&*model, &cases(name), F32_TOLERANCE);
    }
}

#[test]
fn reference_cases_in_batches_of_mixed_lengths() {
    for name in names() {
        for threads in [1, 3] {
            check_in_batches(&*model(name, WeightType::F32, threads), &cases(name), F32_TOLERANCE);
        }
    }
}

#[test]
fn beam_searches_are_those_of_transformers() {
    beam_cases::check_beams(&|folder| load(folder, WeightType::F32));
}

/// To the last bit, whatever else is in a call.
#[test]
fn entries_are_the_same_in_any_calls() {
    for name in names() {
        for threads in [1, 3] {
            for &weight_type in WeightType::ALL {
                check_entries(&*model(name, weight_type, threads), 0.0);
            }
        }
    }
}

#[test]
fn drafts_that_are_verified_give_the_full_model() {
    for name in names() {
        let mut full = cases(name);
        full.retain(|case| case.policy == PolicySpec::full());
        for &weight_type in WeightType::ALL {
            let stayed = check_speculation(&*model(name, weight_type, 2), &full);
            assert!(stayed > 100, "{name} {weight_type}: {stayed}");
        }
    }
}

#[test]
fn layers_have_copies_of_keys_and_values() {
    for &weight_type in WeightType::ALL {
        local_errors::check_copies(&|folder| load(folder, weight_type), 0.0);
    }
}

#[test]
fn experiments_on_local_errors_are_the_same_in_any_batch() {
    for name in names() {
        let mut full = cases(name);
        full.retain(|case| case.policy == PolicySpec::full());
        local_errors::check_policies(&*model(name, WeightType::F32, 2), &full);
    }
}

#[test]
fn narrow_weights_decode_the_same_whatever_the_batch_and_threads() {
    for name in names() {
        for &weight_type in WeightType::ALL {
            let (one, three) = (model(name, weight_type, 1), model(name, weight_type, 3));
            let cases: Vec<_> =
                cases(name).into_iter().filter(|case| case.policy.to_string() == "full").collect();
            let batch: Vec<_> = cases.iter().collect();
            let together = decode_cases(&*three, &batch, Propagation::Lazy);
            for (case, together) in cases.iter().zip(together) {
                let alone = decode_cases(&*one, &[case], Propagation::Lazy).swap_remove(0);
                assert_eq!(alone.tokens, together.tokens, "{}", weight_type.name());
            }
        }
    }
}

#[test]
fn tables_of_the_embedding_are_those_of_transformers() {
    damaged::check_embeddings(&|folder| load(folder, WeightType::F32));
}

#[test]
fn weights_that_cannot_be_decoded_with_are_refused() {
    for &weight_type in WeightType::ALL {
        for parts in [&damaged::T5, &damaged::LLAMA] {
            damaged::check_refusals(parts, &|folder| load(folder, weight_type));
        }
    }
}

#[test]
fn numbers_that_become_too_large_are_an_error_whatever_the_policy() {
    for &weight_type in WeightType::ALL {
        for parts in [&damaged::T5, &damaged::LLAMA] {
            damaged::check_too_large(parts, &|folder| load(folder, weight_type));
        }
    }
}

#[test]
fn a_shared_handle_decodes_on_another_thread() {
    let model = model("v1_1", WeightType::F32, 2);
    let other = model.share(1);
    let case = cases("v1_1").swap_remove(0);
    std::thread::spawn(move || {
        check(&case, &decode_cases(&*other, &[&case], Propagation::Lazy)[0], F32_TOLERANCE);
    })
    .join()
    .unwrap();
    assert_eq!(model.fingerprint().len(), 64);
}

#[test]
fn sources_that_cannot_be_encoded_are_refused() {
    let model = model("v1_1", WeightType::F32, 1);
    let message = |sources: &[&[Token]]| model.read(sources).err().unwrap().to_string();
    assert_eq!(message(&[&[5], &[]]), "source 1 of the batch has no tokens");
    assert_eq!(
        message(&[&[5, 211]]),
        "source 0 of the batch holds token 211, but the vocabulary ends at 211"
    );
}
