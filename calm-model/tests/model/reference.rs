//! Tests every decoding in `tests/reference/*/cases.json`, alone and in batches of mixed lengths.

use std::path::Path;

use calm_checkpoint::{LlamaConfig, Model, NetworkConfig, T5Config};
use calm_core::{
    Backbone, DecodeOptions, Full, Generation, MEASURES, MeasureKind, Parameters, PolicySpec, Propagation,
    Threshold, Token, decode,
};
use calm_model::{Llama, T5, Weights};
use tch::Kind;

use crate::local_errors::{check_copies, check_policies};
use crate::shared::{
    Case, F32_TOLERANCE, LLAMA, cases, check, check_alone, check_entries, check_in_batches,
    check_speculation, decode_cases,
};
use crate::{checkpoint, device};

/// Tolerance of this device.
///
/// These networks have attention so sharp that relative errors of 3e-7 in it become 7e-4 in a confidence. The
/// fused kernel on CUDA makes f32 products of three in tf32, and has such errors.
pub(crate) fn tolerance() -> f32 {
    if device().is_cuda() { 10.0 * F32_TOLERANCE } else { F32_TOLERANCE }
}

fn all() -> impl Iterator<Item = &'static str> {
    crate::shared::T5.into_iter().chain(LLAMA)
}

/// Loads a network in f32.
fn load(name: &str) -> Box<dyn Model> {
    load_from(name, &checkpoint(name))
}

/// Loads a network in f32 from some file of it.
pub(crate) fn load_from(name: &str, path: &Path) -> Box<dyn Model> {
    match LLAMA.contains(&name) {
        true => Box::new(Llama::load(path, device()).unwrap()),
        false => Box::new(T5::load(path, device()).unwrap()),
    }
}

/// Loads a network in double precision, in which rounding decides nothing.
fn exact(name: &str) -> Box<dyn Model> {
    let path = checkpoint(name).join("config.json");
    let weights = |config: &dyn NetworkConfig| {
        let weights = Weights::load(&checkpoint(name), config, device()).unwrap();
        weights.map(|tensor| tensor.to_kind(Kind::Double))
    };
    if LLAMA.contains(&name) {
        let config = LlamaConfig::load(&path).unwrap();
        Box::new(Llama::new(&config, &weights(&config)).unwrap())
    } else {
        let config = T5Config::load(&path).unwrap();
        Box::new(T5::new(&config, &weights(&config)).unwrap())
    }
}

#[test]
fn reference_cases_alone() {
    for name in all() {
        let model = load(name);
        assert_eq!(model.unexpected(), &[] as &[String]);
        check_alone(&*model, &cases(name), tolerance());
    }
}

/// Only rounding separates f32 from the reference: in f64 the confidences agree to the precision in which
/// they are kept.
#[test]
fn reference_cases_in_double_precision() {
    for name in all() {
        check_alone(&*exact(name), &cases(name), 2e-6);
    }
}

#[test]
fn reference_cases_in_batches_of_mixed_lengths() {
    for name in all() {
        let model = load(name);
        check_in_batches(&*model, &cases(name), tolerance());
    }
}

/// The cases have neither the pruned vocabulary nor these thresholds.
///
/// The thresholds leave no decision within 1e-4 of a tie. The decodings are the same after relative changes
/// of 1e-5 to all weights.
#[test]
fn every_measure_decodes_in_batches_as_in_double_precision_alone() {
    for name in crate::shared::T5.into_iter().chain(["llama_gqa_tied"]) {
        let (exact, model) = (exact(name), load(name));
        let mut sources = cases(name);
        sources.retain(|case| case.policy == PolicySpec::full());
        // Those that map others need files of maps or mixtures, and are no other arithmetic. Exit heads have
        // tests of their own.
        let needs_a_file =
            |kind: &MeasureKind| kind.maps.is_some() || kind.name == "beta" || kind.name.starts_with("head_");
        for measure in MEASURES.all().into_iter().filter(|&kind| !needs_a_file(kind)) {
            for (value, decay) in [(0.25, None), (0.2, Some(2.0))] {
                let threshold = Some(Threshold::new(value, decay).unwrap());
                let parameters = Parameters { measure: Some(measure), threshold, ..Parameters::default() };
                let policy = PolicySpec::new("calm", parameters).unwrap();
                let expected = |source: &Case| {
                    let case = Case { policy, ..source.clone() };
                    let generation = decode_cases(&*exact, &[&case], Propagation::Lazy).swap_remove(0);
                    let Generation { tokens, exit_layers, confidence, .. } = generation;
                    Case { tokens, exit_layers, confidence, ..case }
                };
                let cases: Vec<Case> = sources.iter().map(expected).collect();
                check_alone(&*model, &cases, tolerance());
                check_in_batches(&*model, &cases, tolerance());
            }
        }
    }
}

/// In double precision rounding decides nothing; in f32 no two logits of these cases are close enough.
#[test]
fn drafts_that_are_verified_give_the_full_model() {
    for name in all() {
        let mut full = cases(name);
        full.retain(|case| case.policy == PolicySpec::full());
        assert!(check_speculation(&*exact(name), &full) > 100);
        assert!(check_speculation(&*load(name), &full) > 100);
    }
}

#[test]
fn layers_have_copies_of_keys_and_values() {
    // A layer projects queries, keys and values in one product, and propagation keys and values alone.
    let load = |folder: &Path| {
        let is_llama = calm_checkpoint::model_type(folder).unwrap() == "llama";
        Ok(load_from(if is_llama { LLAMA[0] } else { "v1_1" }, folder))
    };
    check_copies(&load, tolerance());
}

#[test]
fn experiments_on_local_errors_are_the_same_in_any_batch() {
    for name in all() {
        let mut full = cases(name);
        full.retain(|case| case.policy == PolicySpec::full());
        check_policies(&*exact(name), &full);
    }
}

#[test]
fn entries_in_any_order_of_calls_are_those_of_a_row_by_itself() {
    for name in all() {
        check_entries(&*load(name), tolerance());
        // States of up to 30 cross the trait in f32.
        check_entries(&*exact(name), 1e-5);
    }
}

#[test]
fn a_shared_handle_decodes_on_another_thread() {
    for name in ["v1_1", "llama_gqa_tied"] {
        let model = load(name);
        let other = model.share(1);
        let case = cases(name).swap_remove(0);
        std::thread::spawn(move || {
            other.enter_thread();
            check(&case, &decode_cases(&*other, &[&case], Propagation::Lazy)[0], tolerance())
        })
        .join()
        .unwrap();
        assert_eq!(model.fingerprint().len(), 64);
    }
}

/// What was read of prompts is the same in each of several decodings, whatever the earlier ones wrote.
#[test]
fn one_prompt_is_decoded_several_times() {
    for name in LLAMA {
        let model = load(name);
        let mut full = cases(name);
        full.retain(|case| case.policy == PolicySpec::full());
        let sources: Vec<&[Token]> = full.iter().map(|case| case.input_ids.as_slice()).collect();
        let prompt = model.read(&sources).unwrap();
        for max_tokens in [20, 3, 20] {
            let generations = decode(&*prompt, &Full, &DecodeOptions::new(max_tokens)).unwrap();
            for (case, generation) in full.iter().zip(generations) {
                assert_eq!(generation.tokens, case.tokens[..max_tokens.min(case.tokens.len())]);
            }
        }
    }
}

/// A prompt that runs in several pieces gives the states of one that runs in one, a token at a time.
#[test]
fn long_prompts_are_those_of_their_tokens() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(checkpoint("llama_gqa_tied").join(file), folder.path().join(file)).unwrap();
    }
    lengthen(folder.path(), 1300);
    let model = Llama::load(folder.path(), device()).unwrap();
    let long: Vec<Token> = (0..1200).map(|i| (i * i + 7 * i) % 224).collect();
    let tokens = |prompt: &[Token], inputs: &[Token]| {
        let read = model.read(&[prompt, &prompt[..prompt.len() / 2]]).unwrap();
        let mut session = read.start(inputs.len() + 1).unwrap();
        let first = *prompt.last().unwrap();
        let mut states = Vec::new();
        for (position, &token) in std::iter::once(&first).chain(inputs).enumerate() {
            let entry = [calm_core::Entry { row: 0, position }];
            session.embed(&entry, &[token]).unwrap();
            for layer in 1..=model.shape().num_layers {
                session.run_layer(layer, &entry).unwrap();
            }
            states = session.hidden(&entry).unwrap().data;
        }
        states
    };
    let expected = tokens(&long, &[]);
    let found = tokens(&long[..400], &long[400..]);
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < tolerance(), "{found} instead of {expected}");
    }
}

/// Gives the positions of a checkpoint another limit.
fn lengthen(folder: &Path, positions: usize) {
    let path = folder.join("config.json");
    let mut config: serde_json::Value = calm_files::read_json(&path).unwrap();
    config["max_position_embeddings"] = positions.into();
    calm_files::write_json(&path, &config).unwrap();
}

#[test]
fn what_has_no_position_is_refused() {
    let model = load("llama_gqa_tied");
    let message = |error: calm_core::EngineError| error.to_string();
    let prompt = vec![3; 250];
    let read = model.read(&[&[5, 6], &prompt]).unwrap();
    assert!(read.start(7).is_ok());
    let error = read.start(8).err().map(message).unwrap();
    assert!(
        error.starts_with("prompt 1 of the batch has 250 tokens, which leaves no place for 8"),
        "{error}"
    );
    let error = model.read(&[&[3; 257]]).err().map(message).unwrap();
    assert!(error.contains("the model has 256 positions"), "{error}");
}

#[test]
fn sources_that_cannot_be_read_are_refused() {
    for (name, vocab_size) in [("v1_1", 211), ("llama_gqa_tied", 224)] {
        let model = load(name);
        let message = |sources: &[&[Token]]| model.read(sources).err().unwrap().to_string();
        assert_eq!(message(&[&[5], &[]]), "source 1 of the batch has no tokens");
        assert_eq!(
            message(&[&[5, vocab_size]]),
            format!(
                "source 0 of the batch holds token {vocab_size}, but the vocabulary ends at {vocab_size}"
            )
        );
    }
}
