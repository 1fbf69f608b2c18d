//! Thresholds, and policies as they are written.

use calm_core::{MEASURES, PolicyError, PolicySpec, Threshold};
use proptest::prelude::*;

use crate::toy::Toy;

fn spec(id: &str) -> PolicySpec {
    id.parse().unwrap()
}

#[test]
fn thresholds_follow_equation_5() {
    let check = |value: f64, decay: Option<f64>, position: usize, max_tokens: usize, expected: f64| {
        let found = Threshold::new(value, decay).unwrap().at(position, max_tokens);
        assert!((found - expected).abs() < 1e-12, "{found} for {expected}");
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
            assert_eq!(Threshold::new(1.0, decay).unwrap().at(step, 10), f64::INFINITY);
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
fn policies_are_written_as_their_ids() {
    let check = |id: &str, again: &str| assert_eq!(spec(id).to_string(), again);
    check("full", "full");
    check("static-2", "static-2");
    check("calm-softmax-0.85-tau4", "calm-softmax-0.85-tau4");
    check("calm-softmax-0.850-tau4.0", "calm-softmax-0.85-tau4");
    check("calm-state-1", "calm-state-1");
    check("calm-classifier-0-tau0.5", "calm-classifier-0-tau0.5");
    check("calm-state-0.5-exits4,2", "calm-state-0.5-exits2.4");
    check("shallow-deep-2-0.50", "shallow-deep-2-0.5");
    check("shallow-deep-2-softmax-0.5", "shallow-deep-2-0.5");
    check("shallow-deep-2-state-0.5-tau4-cap08", "shallow-deep-2-state-0.5-tau4-cap8");
    check("self-speculative", "self-speculative");
    check("self-speculative-draft2.4", "self-speculative-draft2.4");
    check("oracle-copied", "oracle-copied");
    check("shallow-cache-01", "shallow-cache-1");
    check("perturbed-sampling-0", "perturbed-sampling-0");
    check("perturbed-layer-07", "perturbed-layer-7");
}

#[test]
fn badly_written_policies_are_refused() {
    let check = |id: &str, message: &str| {
        let error = id.parse::<PolicySpec>().unwrap_err().to_string();
        assert_eq!(error, message, "{id}");
    };
    let unknown = |name: &str| {
        format!(
            "unknown policy `{name}`: there are full, static, oracle, calm, patience, shallow-deep, \
             shallow-deep-beta, shallow-deep-published, self-speculative, shallow-cache, oracle-copied, \
             perturbed-sampling and perturbed-layer"
        )
    };
    check("fast", &unknown("fast"));
    check("", &unknown(""));
    check("fullest-2", &unknown("fullest"));
    check("full-2", "a policy full is written full");
    check("static", "a policy static is written static-LAYERS");
    check("static-", "a policy static is written static-LAYERS");
    check("static--1", "a policy static is written static-LAYERS");
    check("static-2-3", "a policy static is written static-LAYERS");
    check("static-0", "the policy static needs at least 1 layer");
    let form = "a policy calm is written calm-MEASURE-THRESHOLD[-tauDECAY][-exitsLAYER.LAYER]";
    check("calm", form);
    check("calm-state", form);
    check("calm-state-high", form);
    check("calm-state-0.5-4", form);
    check("calm-state-0.5-tau", form);
    check("calm-state-0.5-tau4-2", form);
    check(
        "calm-meta-0.5",
        "unknown confidence measure `meta`: there are softmax, pruned, state, classifier, agreement, agreement_pruned, \
         beta, head_entropy, head_gap, head_max, head_margin, head_confidence, level_entropy, level_gap and level_max",
    );
    check("calm-state-0.5-tau4-exits", "exits are layers such as 2.4.6, not ``");
    check("calm-state-0.5-exits2.x", "exits are layers such as 2.4.6, not `2.x`");
    check("calm-state-0.5-exits0.2", "exits are layers from 1 to 64, not 0");
    check("calm-state-0.5-exits2.2", "exits have the layer 2 twice");
    check("calm-state-0.5-exits2-tau4", form);
    let form = "a policy shallow-deep is written \
                shallow-deep-LAYERS[-MEASURE]-THRESHOLD[-tauDECAY][-capTOKENS]";
    check("shallow-deep", form);
    check("shallow-deep-2", form);
    check("shallow-deep-0.5", form);
    check("shallow-deep-2-state", form);
    check("shallow-deep-2-0.5-8", form);
    check("shallow-deep-2-0.5-exits2", form);
    check("shallow-deep-2-0.5-cap0", "the cap of tokens that wait must be at least 1");
    check("shallow-deep-0-0.5", "the policy shallow-deep needs at least 1 layer");
    let form = "a policy self-speculative is written self-speculative[-draftLAYERS.TOKENS]";
    check("self-speculative-2.3", form);
    check("self-speculative-draft2", form);
    check("self-speculative-draft2.3-cap2", form);
    check("self-speculative-draft0.3", "a draft needs at least 1 layer and at least 1 token, as in draft3.4");
    check("self-speculative-draft2.0", "a draft needs at least 1 layer and at least 1 token, as in draft3.4");
    check("oracle-copied-1", "a policy oracle-copied is written oracle-copied");
    check("oracle-copy", "a policy oracle is written oracle");
    check("shallow-cache", "a policy shallow-cache is written shallow-cache-LAYERS");
    check("shallow-cache-0", "the policy shallow-cache needs at least 1 layer");
    let form = "a policy perturbed-layer is written perturbed-layer-POSITION";
    check("perturbed-layer", form);
    check("perturbed-layer--1", form);
    check("perturbed-layer-1.5", form);
    check("perturbed-layer-1-2", form);
    check("perturbed-1", &unknown("perturbed"));
    check("calm-state-1.5", "threshold must be from 0 to 1, not 1.5");
    check("calm-state-NaN", "threshold must be from 0 to 1, not NaN");
    check("calm-state-0.5-tauinf", "decay must be a finite number not below 0, not inf");
}

#[test]
fn policies_that_a_backbone_cannot_follow_are_refused() {
    let check = |toy: Toy, id: &str, expected: PolicyError| {
        assert_eq!(spec(id).make(&toy).err(), Some(expected));
    };
    check(Toy::new(3, 0), "static-4", PolicyError::StaticLayers { layers: 4, available: 3 });
    check(Toy::new(3, 0), "calm-state-0.5-exits1.3", PolicyError::Exits { layer: 3, num_layers: 3 });
    check(Toy::new(3, 0).with_classifier(None), "calm-classifier-0.5", PolicyError::NoClassifier);
    check(
        Toy::new(3, 0).with_classifier(Some(vec![1.0; 5])),
        "calm-classifier-0.5",
        PolicyError::ClassifierWidth { width: 5, d_model: 8 },
    );
    check(Toy::new(3, 0), "shallow-deep-3-0.5", PolicyError::Exits { layer: 3, num_layers: 3 });
    check(Toy::new(3, 0), "self-speculative-draft3.2", PolicyError::Exits { layer: 3, num_layers: 3 });
    let message = "a shallow cache must be made of 1 to the decoder's 3 layers, not 4";
    check(Toy::new(3, 0), "shallow-cache-4", PolicyError::Form(message.to_owned()));
    // Other measures do not look at it.
    for toy in [Toy::new(3, 0).with_classifier(None), Toy::new(3, 0).with_classifier(Some(vec![]))] {
        spec("calm-state-0.5").make(&toy).unwrap();
    }
}

#[test]
fn some_policies_are_the_full_model() {
    let check = |id: &str, expected: bool| assert_eq!(spec(id).is_full(3), expected, "{id}");
    check("full", true);
    check("static-3", true);
    check("static-2", false);
    check("oracle", false);
    check("calm-state-1-tau4", true);
    check("calm-state-0.999", false);
    check("shallow-deep-2-1", true);
    check("shallow-deep-2-0.999", false);
    check("self-speculative", false);
    check("oracle-copied", false);
    check("shallow-cache-3", true);
    check("shallow-cache-1", false);
    check("perturbed-sampling-0", false);
    check("perturbed-layer-1000", false);
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
        let steps: Vec<f64> = (0..=n).map(|position| threshold.at(position, n)).collect();
        prop_assert!(steps.is_sorted_by(|a, b| a >= b));
        prop_assert!(steps.iter().all(|at| (0.9 * value..=1.0).contains(at)));
        prop_assert!(steps[0] >= value);
    }

    #[test]
    fn ids_tell_policies_apart(
        a in 0.0..1.0_f64,
        b in 0.0..1.0_f64,
        tau in proptest::option::of(0.0..90.0_f64),
    ) {
        let state = MEASURES.get("state").unwrap();
        let calm = |value| PolicySpec::calm(state, Threshold::new(value, tau).unwrap());
        let (first, second) = (calm(a), calm(b));
        prop_assert_eq!(first.to_string() == second.to_string(), a == b);
        let id = first.to_string();
        prop_assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)));
        prop_assert_eq!(id.parse::<PolicySpec>(), Ok(first));
    }
}
