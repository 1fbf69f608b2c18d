//! Tests every decoding in `tests/reference/*/cases.json`, alone and in batches of mixed lengths.

use calm_checkpoint::T5Config;
use calm_core::{
    Backbone, Generation, MEASURES, MeasureKind, Parameters, PolicySpec, Propagation, Threshold, Token,
};
use calm_model::{T5, Weights};
use tch::Kind;

use crate::shared::{
    Case, F32_TOLERANCE, cases, check, check_alone, check_entries, check_in_batches, check_speculation,
    decode_cases,
};
use crate::{checkpoint, device};

/// Tolerance of this device.
///
/// These networks have attention so sharp that relative errors of 3e-7 in it become 7e-4 in a confidence. The
/// fused kernel on CUDA makes f32 products of three in tf32, and has such errors.
fn tolerance() -> f32 {
    if device().is_cuda() { 10.0 * F32_TOLERANCE } else { F32_TOLERANCE }
}

/// Loads a network in double precision, in which rounding decides nothing.
fn exact(name: &str) -> T5 {
    let config = T5Config::load(&checkpoint(name).join("config.json")).unwrap();
    let weights = Weights::load(&checkpoint(name), &config, device()).unwrap();
    T5::new(&config, &weights.map(|tensor| tensor.to_kind(Kind::Double))).unwrap()
}

#[test]
fn reference_cases_alone() {
    for name in ["v1_0", "v1_1"] {
        let model = T5::load(&checkpoint(name), device()).unwrap();
        assert_eq!(model.unexpected(), &[] as &[String]);
        check_alone(&model, &cases(name), tolerance());
    }
}

/// Only rounding separates f32 from the reference: in f64 the confidences agree to the precision in which
/// they are kept.
#[test]
fn reference_cases_in_double_precision() {
    for name in ["v1_0", "v1_1"] {
        check_alone(&exact(name), &cases(name), 2e-6);
    }
}

#[test]
fn reference_cases_in_batches_of_mixed_lengths() {
    for name in ["v1_0", "v1_1"] {
        let model = T5::load(&checkpoint(name), device()).unwrap();
        check_in_batches(&model, &cases(name), tolerance());
    }
}

/// The cases have neither the pruned vocabulary nor these thresholds.
///
/// The thresholds leave no decision within 1e-4 of a tie. The decodings are the same after relative changes
/// of 1e-5 to all weights.
#[test]
fn every_measure_decodes_in_batches_as_in_double_precision_alone() {
    for name in ["v1_0", "v1_1"] {
        let (exact, model) = (exact(name), T5::load(&checkpoint(name), device()).unwrap());
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
                    let generation = decode_cases(&exact, &[&case], Propagation::Lazy).swap_remove(0);
                    let Generation { tokens, exit_layers, confidence, .. } = generation;
                    Case { tokens, exit_layers, confidence, ..case }
                };
                let cases: Vec<Case> = sources.iter().map(expected).collect();
                check_alone(&model, &cases, tolerance());
                check_in_batches(&model, &cases, tolerance());
            }
        }
    }
}

/// In double precision rounding decides nothing; in f32 no two logits of these cases are close enough.
#[test]
fn drafts_that_are_verified_give_the_full_model() {
    for name in ["v1_0", "v1_1"] {
        let mut full = cases(name);
        full.retain(|case| case.policy == PolicySpec::full());
        assert!(check_speculation(&exact(name), &full) > 100);
        assert!(check_speculation(&T5::load(&checkpoint(name), device()).unwrap(), &full) > 100);
    }
}

#[test]
fn entries_in_any_order_of_calls_are_those_of_a_row_by_itself() {
    for name in ["v1_0", "v1_1"] {
        check_entries(&T5::load(&checkpoint(name), device()).unwrap(), tolerance());
        // States of up to 30 cross the trait in f32.
        check_entries(&exact(name), 1e-5);
    }
}

#[test]
fn a_shared_handle_decodes_on_another_thread() {
    let model = T5::load(&checkpoint("v1_1"), device()).unwrap();
    let other = model.share();
    let case = cases("v1_1").swap_remove(0);
    std::thread::spawn(move || {
        check(&case, &decode_cases(&other, &[&case], Propagation::Lazy)[0], tolerance())
    })
    .join()
    .unwrap();
    assert_eq!(model.fingerprint().len(), 64);
}

#[test]
fn sources_that_cannot_be_encoded_are_refused() {
    let model = T5::load(&checkpoint("v1_1"), device()).unwrap();
    let message = |sources: &[&[Token]]| model.read(sources).err().unwrap().to_string();
    assert_eq!(message(&[&[5], &[]]), "source 1 of the batch has no tokens");
    assert_eq!(
        message(&[&[5, 211]]),
        "source 0 of the batch holds token 211, but the vocabulary ends at 211"
    );
}
