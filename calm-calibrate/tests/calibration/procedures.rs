//! Tests of the family-wise procedures, on literal vectors and by their laws.

use calm_calibrate::procedure::{bonferroni, even_starts, fixed_sequence, graphical, holm, multi_start};
use calm_calibrate::{Error, Graph, LogP, Procedure};
use proptest::prelude::*;

use crate::{fixed_cases, level};

const FWER_REFERENCE: &str = include_str!("../reference/fwer_reference.json");

#[derive(serde::Deserialize)]
struct Reference {
    fwer: Vec<Case>,
    sgt: Vec<GraphCase>,
}

#[derive(serde::Deserialize)]
struct Case {
    p: Vec<f64>,
    eps: f64,
    bonferroni: Vec<usize>,
    holm: Vec<usize>,
    fixed_sequence: Vec<usize>,
    multistart_2: Option<MultiStart>,
    multistart_3: Option<MultiStart>,
}

#[derive(serde::Deserialize)]
struct MultiStart {
    starts: Vec<usize>,
    rejected: Vec<usize>,
}

#[derive(serde::Deserialize)]
struct GraphCase {
    p: Vec<f64>,
    w: Vec<f64>,
    #[serde(rename = "G")]
    transitions: Vec<Vec<f64>>,
    eps: f64,
    rejected: Vec<usize>,
}

fn every_procedure() -> impl Iterator<Item = Procedure> {
    Procedure::NAMES.iter().map(|name| name.parse().unwrap())
}

fn log_p(p: &[f64]) -> Vec<LogP> {
    p.iter().map(|&p| LogP::from_p(p).unwrap()).collect()
}

#[test]
fn fwer_reference() {
    let reference: Reference = serde_json::from_str(FWER_REFERENCE).unwrap();
    assert_eq!(reference.fwer.len(), 11);
    let mut multi_starts = 0;
    for case in reference.fwer {
        let (log_p, epsilon) = (log_p(&case.p), level(case.eps));
        assert_eq!(bonferroni(&log_p, epsilon), case.bonferroni, "{:?}", case.p);
        assert_eq!(holm(&log_p, epsilon), case.holm, "{:?}", case.p);
        assert_eq!(fixed_sequence(&log_p, epsilon), case.fixed_sequence, "{:?}", case.p);
        for (count, expected) in [(2, case.multistart_2), (3, case.multistart_3)] {
            if let Some(expected) = expected {
                assert_eq!(even_starts(count, case.p.len()), expected.starts);
                assert_eq!(multi_start(&log_p, &expected.starts, epsilon), expected.rejected, "{:?}", case.p);
                let procedure = Procedure::MultiStart { starts: count };
                assert_eq!(procedure.reject(&log_p, epsilon).unwrap(), expected.rejected);
                multi_starts += 1;
            }
        }
    }
    assert_eq!((multi_starts, reference.sgt.len()), (20, 3));
    for case in reference.sgt {
        let graph = Graph::new(case.w, case.transitions).unwrap();
        let rejected = graphical(&log_p(&case.p), &graph, level(case.eps)).unwrap();
        assert_eq!(rejected, case.rejected, "{:?}", case.p);
    }
}

#[test]
fn starts_at_equal_distances() {
    let check = |count: usize, hypotheses: usize, expected: &[usize]| {
        assert_eq!(even_starts(count, hypotheses), expected, "{count} for {hypotheses}");
    };
    check(0, 5, &[]);
    check(3, 0, &[]);
    check(1, 5, &[0]);
    check(4, 8, &[0, 2, 4, 6]);
    check(3, 8, &[0, 2, 4]);
    check(9, 3, &[0, 1, 2]);
}

/// A start that leads nowhere takes its share all the same.
#[test]
fn every_start_has_its_share() {
    let p = log_p(&[0.02, 0.02, 0.3, 0.02]);
    assert_eq!(multi_start(&p, &[0, 3], level(0.05)), [0, 1, 3]);
    assert_eq!(multi_start(&p, &[0, 3, 9], level(0.05)), [0_usize; 0]);
    assert_eq!(multi_start(&p, &[], level(0.05)), [0_usize; 0]);
    assert_eq!(multi_start(&p, &[1, 0], level(0.05)), [0, 1], "rejected from two starts, named once");
}

#[test]
fn the_fallback_procedure_hands_on() {
    let fallback = |p: &[f64]| {
        let graph = Graph::fallback(p.len());
        graphical(&log_p(p), &graph, level(0.06)).unwrap()
    };
    // Each hypothesis has a share of 0.02; a rejection adds its level to the next one.
    assert_eq!(fallback(&[0.0199, 0.0399, 0.0599]), [0, 1, 2]);
    assert_eq!(fallback(&[0.021, 0.0199, 0.0399]), [1, 2]);
    assert_eq!(fallback(&[0.021, 0.021, 0.0199]), [2]);
    assert_eq!(fallback(&[0.0199, 0.041, 0.0199]), [0, 2]);
}

/// Without a share of the level there is no test.
///
/// A fixed sequence as a graph stops at its first failure even before a p-value of 0.
#[test]
fn no_level_no_rejection() {
    let graph = Graph::fixed_sequence(3);
    assert_eq!(graphical(&log_p(&[0.2, 0.0, 0.0]), &graph, level(0.05)).unwrap(), [0_usize; 0]);
}

/// Hypotheses 0 and 1 give to each other, and next to nothing to 2 and 3.
///
/// What they give sums to more than 1 by an accepted rounding. Once 0 and 1 are rejected, 2 and 3 have a half
/// of epsilon each, and not a whole one.
#[test]
fn roundings_make_no_level() {
    let little = 5.5e-10;
    let transitions =
        vec![vec![0.0, 1.0 - 1e-10, little, little], vec![1.0, 0.0, 0.0, 0.0], vec![0.0; 4], vec![0.0; 4]];
    let graph = Graph::new(vec![0.5, 0.5, 0.0, 0.0], transitions).unwrap();
    let reject = |last: f64| graphical(&log_p(&[0.0, 0.0, last, last]), &graph, level(0.05)).unwrap();
    assert_eq!(reject(0.024), [0, 1, 2, 3]);
    assert_eq!(reject(0.026), [0, 1]);
}

/// In a circle that nothing leaves, the level of the last hypothesis rejected is lost.
#[test]
fn a_circle_without_exit() {
    let transitions = vec![vec![0.0, 1.0, 0.0], vec![1.0, 0.0, 0.0], vec![0.5, 0.5, 0.0]];
    let graph = Graph::new(vec![0.4, 0.4, 0.2], transitions).unwrap();
    let reject = |last: f64| graphical(&log_p(&[0.0, 0.0, last]), &graph, level(0.1)).unwrap();
    assert_eq!(reject(0.019), [0, 1, 2]);
    assert_eq!(reject(0.021), [0, 1]);
}

#[test]
fn a_graph_for_another_number_of_hypotheses_is_refused() {
    let error = graphical(&log_p(&[0.1, 0.2]), &Graph::holm(3), level(0.05)).unwrap_err();
    assert!(matches!(error, Error::InvalidGraph { .. }));
}

#[test]
fn bets_are_tuned_for_the_first_level() {
    let check = |procedure: Procedure, parts: f64| {
        let found = procedure.first_level(8, level(0.05)).get();
        assert!((found - 0.05 / parts).abs() < 1e-15, "{procedure}: {found}");
    };
    for (name, parts) in Procedure::NAMES.iter().zip([8.0, 8.0, 1.0, 4.0, 8.0, 1.0]) {
        check(name.parse().unwrap(), parts);
    }
    check(Procedure::MultiStart { starts: 20 }, 8.0);
}

#[test]
fn a_p_value_equal_to_the_level_is_rejected() {
    assert_eq!(fixed_sequence(&log_p(&[0.05, 0.05, 0.050_000_001, 0.0]), level(0.05)), [0, 1]);
    assert_eq!(bonferroni(&log_p(&[0.025, 0.025_000_001]), level(0.05)), [0]);
    assert_eq!(holm(&log_p(&[0.05, 0.025]), level(0.05)), [0, 1]);
    assert_eq!(holm(&log_p(&[0.05, 0.025_000_001]), level(0.05)), [0_usize; 0]);
    assert_eq!(multi_start(&log_p(&[0.025, 0.025_000_001, 0.025, 0.05]), &[0, 2], level(0.05)), [0, 2]);
    for graph in [Graph::holm(2), Graph::fallback(2)] {
        assert_eq!(graphical(&log_p(&[0.025, 0.05]), &graph, level(0.05)).unwrap(), [0, 1]);
    }
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

    #[test]
    fn holm_contains_bonferroni(p in p_values()) {
        let (bonferroni, holm) = (bonferroni(&log_p(&p), level(0.05)), holm(&log_p(&p), level(0.05)));
        prop_assert!(bonferroni.iter().all(|index| holm.contains(index)));
    }

    /// Holm's own definition: the k-th smallest p-value is rejected if it and all smaller ones pass.
    #[test]
    fn holm_is_closed_testing(p in p_values()) {
        let holm = holm(&log_p(&p), level(0.05));
        let passes = |p_i: f64| {
            let not_smaller = p.iter().filter(|&&other| other >= p_i).count();
            p_i <= 0.05 / not_smaller as f64
        };
        for (index, &p_i) in p.iter().enumerate() {
            let expected = p.iter().all(|&other| other > p_i || passes(other));
            prop_assert_eq!(holm.contains(&index), expected, "{:?}", p);
        }
    }

    #[test]
    fn one_start_and_a_chain_are_the_fixed_sequence(p in p_values()) {
        let (log_p, epsilon) = (log_p(&p), level(0.05));
        let expected = fixed_sequence(&log_p, epsilon);
        prop_assert_eq!(&multi_start(&log_p, &[0], epsilon), &expected);
        prop_assert_eq!(&graphical(&log_p, &Graph::fixed_sequence(p.len()), epsilon).unwrap(), &expected);
    }

    #[test]
    fn as_many_starts_as_hypotheses_contain_bonferroni(p in p_values()) {
        let (log_p, epsilon) = (log_p(&p), level(0.05));
        let starts = even_starts(p.len(), p.len());
        prop_assert_eq!(multi_start(&log_p, &starts, epsilon), bonferroni(&log_p, epsilon));
    }

    /// The p-values differ from the levels by more than the rounding that the graph's levels collect.
    #[test]
    fn equal_shares_handed_on_equally_are_holm(p in p_values()) {
        let nudged: Vec<f64> = p.iter().map(|&p| p * (1.0 - 1e-9)).collect();
        let (log_p, epsilon) = (log_p(&nudged), level(0.05));
        let graph = Graph::holm(p.len());
        prop_assert_eq!(graphical(&log_p, &graph, epsilon).unwrap(), holm(&log_p, epsilon));
    }

    /// The hypotheses that a graph rejects do not depend on their names.
    ///
    /// Hence they do not depend on which one is taken first.
    #[test]
    fn graphs_do_not_depend_on_the_order(
        p in prop::collection::vec(prop_oneof![0.0..=0.06, 0.0..=0.01], 5),
        weights in prop::collection::vec(0.0..0.2, 5),
        entries in prop::collection::vec(0.0..0.24, 25),
        order in Just(vec![0, 1, 2, 3, 4]).prop_shuffle(),
    ) {
        let entry = |i: usize, j: usize| if i == j { 0.0 } else { entries[5 * i + j] };
        let graph = |order: &[usize]| {
            let weights = order.iter().map(|&i| weights[i]).collect();
            let row = |&i: &usize| order.iter().map(|&j| entry(i, j)).collect();
            Graph::new(weights, order.iter().map(row).collect()).unwrap()
        };
        let expected = graphical(&log_p(&p), &graph(&[0, 1, 2, 3, 4]), level(0.05)).unwrap();
        let reordered: Vec<f64> = order.iter().map(|&i| p[i]).collect();
        let found = graphical(&log_p(&reordered), &graph(&order), level(0.05)).unwrap();
        let mut found: Vec<usize> = found.into_iter().map(|place| order[place]).collect();
        found.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}
