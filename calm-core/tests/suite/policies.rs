//! Thresholds, and policies as they are written.

use calm_core::{Measure, Policy, PolicyError, PolicySpec, StepThreshold, Threshold};
use proptest::prelude::*;

use crate::toy::Toy;

fn calm(measure: Measure, threshold: f64, decay: Option<f64>) -> PolicySpec {
    PolicySpec::Calm { measure, threshold: Threshold::new(threshold, decay).unwrap() }
}

#[test]
fn thresholds_follow_equation_5() {
    let check =
        |value: f64, decay: Option<f64>, step: usize, max_tokens: usize, expected: f64| match Threshold::new(
            value, decay,
        )
        .unwrap()
        .at(step, max_tokens)
        {
            StepThreshold::AtLeast(found) => {
                assert!((found - expected).abs() < 1e-12, "{found} for {expected}")
            }
            StepThreshold::NeverExit => panic!("{value} is no threshold of 1"),
        };
    check(0.7, None, 0, 10, 0.7);
    check(0.7, None, 9, 10, 0.7);
    check(0.0, None, 3, 10, 0.0);
    // 0.9 * 0.7 = 0.63, then 0.1 e^0, 0.1 e^-2, and 0.1 e^-3.6 at the last step.
    check(0.7, Some(4.0), 0, 10, 0.73);
    check(0.7, Some(4.0), 5, 10, 0.63 + 0.013_533_528_323_661_27);
    check(0.7, Some(4.0), 9, 10, 0.63 + 0.002_732_372_244_729_257);
    // A decay of 0 is not the constant threshold.
    check(0.7, Some(0.0), 7, 10, 0.73);
    check(0.0, Some(1.0), 0, 10, 0.1);
}

#[test]
fn threshold_1_never_exits() {
    for decay in [None, Some(0.0), Some(4.0)] {
        for step in [0, 9] {
            assert_eq!(Threshold::new(1.0, decay).unwrap().at(step, 10), StepThreshold::NeverExit);
        }
    }
    assert!(!Threshold::new(0.999_999, None).unwrap().never_exits());
}

#[test]
fn thresholds_outside_their_range_are_refused() {
    for value in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert!(matches!(Threshold::new(value, None), Err(PolicyError::Threshold(_))), "{value}");
    }
    for decay in [-0.1, f64::NAN, f64::INFINITY] {
        assert!(matches!(Threshold::new(0.5, Some(decay)), Err(PolicyError::Decay(_))), "{decay}");
    }
}

#[test]
fn policies_are_written_as_json() {
    let check = |json: &str, spec: PolicySpec, id: &str| {
        assert_eq!(serde_json::from_str::<PolicySpec>(json).unwrap(), spec, "{json}");
        let again = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<PolicySpec>(&again).unwrap(), spec, "{again}");
        assert_eq!(spec.id(), id);
        assert_eq!(spec.to_string(), id);
    };
    check(r#"{"kind":"full"}"#, PolicySpec::Full, "full");
    check(r#"{"kind":"oracle"}"#, PolicySpec::Oracle, "oracle");
    check(r#"{"kind":"static","layers":2}"#, PolicySpec::Static { layers: 2 }, "static-2");
    check(
        r#"{"kind":"calm","measure":"softmax","threshold":0.85,"decay":4.0}"#,
        calm(Measure::Softmax, 0.85, Some(4.0)),
        "calm-softmax-0.85-tau4",
    );
    check(
        r#"{"kind":"calm","measure":"state","threshold":1,"decay":null}"#,
        calm(Measure::State, 1.0, None),
        "calm-state-1",
    );
    check(
        r#"{"kind":"calm","measure":"classifier","threshold":-0.0,"decay":0.5}"#,
        calm(Measure::Classifier, 0.0, Some(0.5)),
        "calm-classifier-0-tau0.5",
    );
}

#[test]
fn badly_written_policies_are_refused() {
    let check = |json: &str, message: &str| {
        let error = serde_json::from_str::<PolicySpec>(json).unwrap_err().to_string();
        assert!(error.contains(message), "{json}: {error}");
    };
    check(r#"{"kind":"fast"}"#, "unknown policy kind 'fast' (there are full, static, oracle and calm)");
    check(r#"{"layers":2}"#, "missing field `kind`");
    check(r#"{"kind":"full","layers":2}"#, "policy 'full' has no field 'layers'");
    check(r#"{"kind":"oracle","decay":2}"#, "policy 'oracle' has no field 'decay'");
    check(r#"{"kind":"static","layers":2,"threshold":0.5}"#, "policy 'static' has no field 'threshold'");
    check(r#"{"kind":"full","lambda":2}"#, "unknown field `lambda`");
    check(r#"{"kind":"static"}"#, "policy 'static' needs the field 'layers'");
    check(r#"{"kind":"static","layers":0}"#, "policy 'static' needs at least 1 layer");
    check(r#"{"kind":"static","layers":-1}"#, "invalid value: integer `-1`");
    check(r#"{"kind":"calm","threshold":0.5}"#, "policy 'calm' needs the field 'measure'");
    check(r#"{"kind":"calm","measure":"state"}"#, "policy 'calm' needs the field 'threshold'");
    check(r#"{"kind":"calm","measure":"meta","threshold":0.5}"#, "unknown variant `meta`");
    check(r#"{"kind":"calm","measure":"state","threshold":1.5}"#, "threshold must be from 0 to 1, not 1.5");
    check(
        r#"{"kind":"calm","measure":"state","threshold":0.5,"decay":-1}"#,
        "decay must be a finite number not below 0, not -1",
    );
    check(
        r#"{"kind":"calm","measure":"state","threshold":0.5,"layers":1}"#,
        "policy 'calm' has no field 'layers'",
    );
}

#[test]
fn policies_are_resolved_for_a_backbone() {
    let toy = Toy::new(3, 0);
    let check = |spec: PolicySpec, expected: &str| {
        assert_eq!(format!("{:?}", spec.resolve(&toy).unwrap()), expected);
    };
    check(PolicySpec::Full, "Full");
    check(PolicySpec::Oracle, "Oracle");
    check(PolicySpec::Static { layers: 3 }, "Static(3)");
    check(calm(Measure::Classifier, 0.5, None), "Calm(classifier, Threshold { value: 0.5, decay: None })");
}

#[test]
fn policies_that_a_backbone_cannot_follow_are_refused() {
    let check = |toy: Toy, spec: PolicySpec, expected: PolicyError| {
        assert_eq!(spec.resolve(&toy).err(), Some(expected));
    };
    for layers in [0, 4] {
        let error = PolicyError::StaticLayers { layers, available: 3 };
        check(Toy::new(3, 0), PolicySpec::Static { layers }, error);
    }
    let classifier = calm(Measure::Classifier, 0.5, None);
    check(Toy::new(3, 0).with_classifier(None), classifier, PolicyError::NoClassifier);
    check(
        Toy::new(3, 0).with_classifier(Some(vec![1.0; 5])),
        classifier,
        PolicyError::ClassifierWidth { width: 5, d_model: 8 },
    );
    // Other measures do not look at it.
    for toy in [Toy::new(3, 0).with_classifier(None), Toy::new(3, 0).with_classifier(Some(vec![]))] {
        calm(Measure::State, 0.5, None).resolve(&toy).unwrap();
    }
}

#[test]
fn only_policies_that_test_have_test_inputs() {
    let toy = Toy::new(3, 0);
    for spec in [
        PolicySpec::Full,
        PolicySpec::Oracle,
        PolicySpec::Static { layers: 1 },
        calm(Measure::State, 1.0, Some(4.0)),
    ] {
        assert_eq!(spec.test_inputs(), None, "{spec}");
        assert_eq!(spec.resolve(&toy).unwrap().test_inputs(), None, "{spec}");
    }
    for measure in Measure::ALL {
        let spec = calm(measure, 0.99, None);
        assert_eq!(spec.test_inputs(), Some(measure.inputs()));
        let policy: Policy = spec.resolve(&toy).unwrap();
        assert_eq!(policy.test_inputs(), Some(measure.inputs()));
    }
}

proptest! {
    #![proptest_config(crate::cases(256))]

    #[test]
    fn decaying_thresholds_fall_from_above_lambda(
        value in 0.0..1.0_f64,
        tau in 0.0..20.0_f64,
        n in 1..200_usize,
    ) {
        let threshold = Threshold::new(value, Some(tau)).unwrap();
        let steps: Vec<f64> = (0..=n)
            .map(|step| match threshold.at(step, n) {
                StepThreshold::AtLeast(at) => at,
                StepThreshold::NeverExit => panic!("{value} is no threshold of 1"),
            })
            .collect();
        prop_assert!(steps.is_sorted_by(|a, b| a >= b));
        prop_assert!(steps.iter().all(|at| (0.9 * value..=1.0).contains(at)));
        prop_assert!(steps[0] >= value);
    }

    #[test]
    fn ids_tell_policies_apart(
        // Few digits, which serde_json reads back exactly without its feature float_roundtrip.
        a in (0..2000_u16).prop_map(|a| f64::from(a) / 2000.0),
        b in (0..2000_u16).prop_map(|b| f64::from(b) / 2000.0),
        tau in proptest::option::of((0..90_u8).prop_map(|tau| f64::from(tau) / 10.0)),
    ) {
        let (first, second) = (calm(Measure::State, a, tau), calm(Measure::State, b, tau));
        prop_assert_eq!(first.id() == second.id(), a == b);
        prop_assert!(first.id().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)));
        let json = serde_json::to_string(&first).unwrap();
        prop_assert_eq!(serde_json::from_str::<PolicySpec>(&json).unwrap(), first);
    }
}
