//! Family-wise procedures on literal vectors and by their laws.

use calm_calibrate::procedure::{bonferroni, fixed_sequence};
use calm_calibrate::{ErrorProbability, LogP, Procedure};
use proptest::prelude::*;

use crate::fixed_cases;

const FWER_REFERENCE: &str = include_str!("../reference/fwer_reference.json");

#[derive(serde::Deserialize)]
struct Reference {
    fwer: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    p: Vec<f64>,
    eps: f64,
    bonferroni: Vec<usize>,
    fixed_sequence: Vec<usize>,
}

fn every_procedure() -> impl Iterator<Item = Procedure> {
    Procedure::NAMES.iter().map(|name| name.parse().unwrap())
}

fn log_p(p: &[f64]) -> Vec<LogP> {
    p.iter().map(|&p| LogP::from_p(p).unwrap()).collect()
}

fn level(epsilon: f64) -> ErrorProbability {
    ErrorProbability::new(epsilon).unwrap()
}

#[test]
fn fwer_reference() {
    let reference: Reference = serde_json::from_str(FWER_REFERENCE).unwrap();
    assert_eq!(reference.fwer.len(), 11);
    for case in reference.fwer {
        let (log_p, epsilon) = (log_p(&case.p), level(case.eps));
        assert_eq!(bonferroni(&log_p, epsilon), case.bonferroni, "{:?}", case.p);
        assert_eq!(fixed_sequence(&log_p, epsilon), case.fixed_sequence, "{:?}", case.p);
    }
}

#[test]
fn a_p_value_equal_to_the_level_is_rejected() {
    assert_eq!(fixed_sequence(&log_p(&[0.05, 0.05, 0.050_000_001, 0.0]), level(0.05)), [0, 1]);
    assert_eq!(bonferroni(&log_p(&[0.025, 0.025_000_001]), level(0.05)), [0]);
}

#[test]
fn nothing_to_test() {
    for procedure in every_procedure() {
        assert!(procedure.reject(&[], level(0.05)).unwrap().is_empty(), "{procedure}");
    }
}

#[test]
fn nan_is_no_p_value() {
    assert!(LogP::from_p(f64::NAN).is_err() && LogP::from_ln(f64::NAN).is_err());
    assert!(LogP::from_p(1.1).is_err() && LogP::from_p(-0.1).is_err() && LogP::from_ln(0.1).is_err());
}

fn p_values() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(prop_oneof![0.0..=1.0, 0.0..=0.06, Just(0.05), Just(0.0)], 1..12)
}

proptest! {
    #![proptest_config(fixed_cases())]

    #[test]
    fn fixed_sequence_rejects_the_longest_passing_prefix(p in p_values()) {
        let rejected = fixed_sequence(&log_p(&p), level(0.05));
        prop_assert_eq!(&rejected, &(0..rejected.len()).collect::<Vec<_>>());
        prop_assert!(p[..rejected.len()].iter().all(|&p| p <= 0.05));
        prop_assert!(p.get(rejected.len()).is_none_or(|&p| p > 0.05));
    }

    #[test]
    fn bonferroni_rejects_each_by_itself(p in p_values()) {
        let rejected = bonferroni(&log_p(&p), level(0.05));
        for (i, &p_i) in p.iter().enumerate() {
            prop_assert_eq!(rejected.contains(&i), p_i <= 0.05 / p.len() as f64);
        }
    }

    #[test]
    fn lowering_a_p_value_loses_no_rejection(p in p_values(), i in any::<prop::sample::Index>(), factor in 0.0..1.0) {
        let mut lower = p.clone();
        lower[i.index(p.len())] *= factor;
        for procedure in every_procedure() {
            let before = procedure.reject(&log_p(&p), level(0.05)).unwrap();
            let after = procedure.reject(&log_p(&lower), level(0.05)).unwrap();
            prop_assert!(before.iter().all(|index| after.contains(index)), "{}", procedure);
        }
    }
}
