//! Isotonic regression: against scikit-learn, and its laws. Levels: against the procedure they stand for.

use calm_core::{MonotoneMap, Observation};
use proptest::prelude::*;

fn fit(pairs: &[(f32, f32)]) -> Option<MonotoneMap> {
    MonotoneMap::fit(observations(pairs))
}

fn observations(pairs: &[(f32, f32)]) -> impl Iterator<Item = Observation> {
    pairs.iter().map(|&(x, y)| Observation { x, y })
}

#[test]
fn equals_scikit_learn() {
    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        x: Vec<f32>,
        y: Vec<f32>,
        at: Vec<f32>,
        expected: Vec<f64>,
    }
    let cases: Vec<Case> = serde_json::from_str(include_str!("../golden/isotonic.json")).unwrap();
    assert_eq!(cases.len(), 11);
    for Case { name, x, y, at, expected } in cases {
        let map = fit(&x.into_iter().zip(y).collect::<Vec<_>>()).unwrap();
        for (at, expected) in at.into_iter().zip(expected) {
            let found = f64::from(map.at(at));
            assert!((found - expected).abs() < 1e-6, "{name} at {at}: {found} instead of {expected}");
        }
    }
}

#[test]
fn a_function_that_rises_is_recovered_exactly() {
    // Each value often enough that its mean is what made it.
    let share = |x: usize| x * x;
    let pairs: Vec<(f32, f32)> = (0..=8_usize)
        .flat_map(|x| (0..64).map(move |i| (x as f32 / 8.0, f32::from(u8::from(i < share(x))))))
        .collect();
    let map = fit(&pairs).unwrap();
    for x in 0..=8 {
        assert_eq!(map.at(x as f32 / 8.0), share(x) as f32 / 64.0);
    }
    // Between two values it is linear.
    assert_eq!(map.at(0.9375), (1.0 + 49.0 / 64.0) / 2.0);
}

#[test]
fn what_is_no_number_stays_none_and_fits_nothing() {
    assert_eq!(fit(&[]), None);
    assert_eq!(fit(&[(f32::NAN, 1.0), (f32::INFINITY, 0.0)]), None);
    let map = fit(&[(f32::NAN, 1.0), (0.25, 0.0), (0.75, 1.0)]).unwrap();
    assert_eq!(map.at(0.5), 0.5);
    assert!(map.at(f32::NAN).is_nan());
    assert_eq!((map.at(f32::NEG_INFINITY), map.at(f32::INFINITY)), (0.0, 1.0));
}

#[test]
fn files_with_other_functions_are_refused() {
    let check = |json: &str, message: &str| {
        let error = serde_json::from_str::<MonotoneMap>(json).unwrap_err().to_string();
        assert!(error.starts_with(message), "{json}: {error}");
    };
    check(r#"{"x": [], "y": []}"#, "x and y must be as long as each other");
    check(r#"{"x": [1, 2], "y": [1]}"#, "x and y must be as long as each other");
    check(r#"{"x": [1, 1], "y": [0, 1]}"#, "x must rise");
    check(r#"{"x": [1, 2], "y": [1, 0]}"#, "y must not fall");
    check(r#"{"x": [1, 2]}"#, "missing field `y`");
}

/// The calibration of BranchyLLM for one head, by its description: for a wished level, all observed
/// uncertainties are tried as thresholds, and the largest one is taken whose tokens (those not less certain)
/// agree often enough. Says which observations leave.
fn max_coverage(pairs: &[(f32, bool)], level: f64) -> Vec<bool> {
    let share = |uncertainty: f32| {
        let passed = pairs.iter().filter(|(confidence, _)| 1.0 - confidence <= uncertainty);
        let agreeing = passed.clone().filter(|(_, agrees)| *agrees).count();
        agreeing as f64 / passed.count() as f64
    };
    let uncertainties = pairs.iter().map(|(confidence, _)| 1.0 - confidence);
    let threshold = uncertainties.filter(|&uncertainty| share(uncertainty) >= level).reduce(f32::max);
    pairs.iter().map(|(confidence, _)| threshold.is_some_and(|most| 1.0 - confidence <= most)).collect()
}

#[test]
fn levels_by_hand() {
    // From the top: 0.9 agrees, 0.8 does not, 0.6 twice does, 0.2 does not: shares of 1, 1/2, 3/4, 3/5.
    let pairs = [(0.9, 1.0), (0.8, 0.0), (0.6, 1.0), (0.6, 1.0), (0.2, 0.0)];
    let map = MonotoneMap::fit_levels(observations(&pairs)).unwrap();
    for (x, level) in [
        (-1.0, 0.6),
        (0.2, 0.6),
        (0.599, 0.6),
        (0.6, 0.75),
        (0.8, 0.75),
        (0.89, 0.75),
        (0.9, 1.0),
        (2.0, 1.0),
    ] {
        assert!((map.at(x) - level).abs() < 1e-6, "{x}: {} instead of {level}", map.at(x));
    }
    assert!(MonotoneMap::fit_levels([Observation { x: f32::NAN, y: 1.0 }]).is_none());
}

proptest! {
    #![proptest_config(crate::cases(256))]

    /// Confidences are multiples of 1/32, which have exact uncertainties.
    #[test]
    fn levels_let_the_tokens_leave_that_max_coverage_does(
        pairs in proptest::collection::vec((0..=32_u8, any::<bool>()), 1..60),
        thousandths in proptest::collection::vec(0..=1000_u16, 1..30),
    ) {
        let pairs: Vec<(f32, bool)> = pairs.into_iter().map(|(x, agrees)| (f32::from(x) / 32.0, agrees)).collect();
        let observed = pairs.iter().map(|&(x, agrees)| Observation { x, y: f32::from(u8::from(agrees)) });
        let map = MonotoneMap::fit_levels(observed).unwrap();
        for level in thousandths.into_iter().map(|level| f64::from(level) / 1000.0) {
            let leaves: Vec<bool> = pairs.iter().map(|&(x, _)| f64::from(map.at(x)) >= level).collect();
            prop_assert_eq!(leaves, max_coverage(&pairs, level), "at {}", level);
        }
    }

    #[test]
    fn knots_come_back_exactly(
        pairs in proptest::collection::vec((0.0..1.0_f32, 0..2_u8), 1..60),
    ) {
        let pairs: Vec<(f32, f32)> = pairs.into_iter().map(|(x, y)| (x, f32::from(y))).collect();
        for map in [fit(&pairs).unwrap(), MonotoneMap::fit_levels(observations(&pairs)).unwrap()] {
            for (x, y) in map.knots() {
                prop_assert_eq!(map.at(x), y);
            }
        }
    }

    #[test]
    fn fits_never_fall_and_stay_in_range(
        pairs in proptest::collection::vec((0.0..1.0_f32, 0..2_u8), 1..60),
        mut at in proptest::collection::vec(-0.5..1.5_f32, 2..20),
        seed in any::<u64>(),
    ) {
        let pairs: Vec<(f32, f32)> = pairs.into_iter().map(|(x, y)| (x, f32::from(y))).collect();
        let map = fit(&pairs).unwrap();
        at.sort_by(f32::total_cmp);
        let values: Vec<f32> = at.iter().map(|&x| map.at(x)).collect();
        prop_assert!(values.is_sorted());
        prop_assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
        // A file brings it back.
        let again: MonotoneMap = serde_json::from_str(&serde_json::to_string(&map).unwrap()).unwrap();
        prop_assert_eq!(&again, &map);
        // The order of the observations does not matter.
        let mut shuffled = pairs.clone();
        let count = shuffled.len();
        for index in 0..count {
            shuffled.swap(index, (seed as usize).wrapping_mul(index + 7) % count);
        }
        prop_assert_eq!(fit(&shuffled).unwrap(), map);
        // The mean of the fit is that of the observations.
        let fitted: f64 = pairs.iter().map(|&(x, _)| f64::from(again.at(x))).sum();
        let observed: f64 = pairs.iter().map(|&(_, y)| f64::from(y)).sum();
        prop_assert!((fitted - observed).abs() < 1e-3);
    }
}
