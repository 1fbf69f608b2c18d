//! Every decoding in `tests/reference/*/cases.json`, alone and in batches of mixed lengths.

use calm_checkpoint::T5Config;
use calm_core::{Backbone, Propagation, Token};
use calm_model::{T5, Weights};
use tch::{Device, Kind};

#[path = "../reference/cases.rs"]
mod shared;

pub(crate) use self::shared::checkpoint;
use self::shared::{F32_TOLERANCE, cases, check, check_alone, check_in_batches, decode_cases};

fn device() -> Device {
    tch::set_num_threads(1);
    // `CALM_TEST_DEVICE=cuda:0 cargo test -p calm-model` runs the same cases on a GPU.
    calm_model::device::init(Some(std::env::var("CALM_TEST_DEVICE").as_deref().unwrap_or("cpu"))).unwrap()
}

#[test]
fn reference_cases_alone() {
    for name in ["v1_0", "v1_1"] {
        let model = T5::load(&checkpoint(name), device()).unwrap();
        assert_eq!(model.unexpected(), &[] as &[String]);
        check_alone(&model, name, F32_TOLERANCE);
    }
}

/// What separates f32 from the reference is rounding alone: in f64 the confidences agree to the precision they are kept in.
#[test]
fn reference_cases_in_double_precision() {
    for name in ["v1_0", "v1_1"] {
        let config = T5Config::load(&checkpoint(name).join("config.json")).unwrap();
        let weights = Weights::load(&checkpoint(name), device()).unwrap();
        let model = T5::new(&config, &weights.map(|tensor| tensor.to_kind(Kind::Double))).unwrap();
        check_alone(&model, name, 2e-6);
    }
}

#[test]
fn reference_cases_in_batches_of_mixed_lengths() {
    for name in ["v1_0", "v1_1"] {
        check_in_batches(&T5::load(&checkpoint(name), device()).unwrap(), name, F32_TOLERANCE);
    }
}

#[test]
fn a_shared_handle_decodes_on_another_thread() {
    let model = T5::load(&checkpoint("v1_1"), device()).unwrap();
    let other = model.share();
    let case = cases("v1_1").swap_remove(0);
    std::thread::spawn(move || {
        check(&case, &decode_cases(&other, &[&case], Propagation::Lazy)[0], F32_TOLERANCE)
    })
    .join()
    .unwrap();
    assert_eq!(model.fingerprint().len(), 64);
}

#[test]
fn sources_that_cannot_be_encoded_are_refused() {
    let model = T5::load(&checkpoint("v1_1"), device()).unwrap();
    let message = |sources: &[&[Token]]| model.encode(sources).err().unwrap().to_string();
    assert_eq!(message(&[&[5], &[]]), "source 1 of the batch has no tokens");
    assert_eq!(
        message(&[&[5, 211]]),
        "source 0 of the batch holds token 211, but the vocabulary ends at 211"
    );
}
