//! Tests of upper confidence bounds: reference values, and the duality with the p-values.

use calm_calibrate::{Error, LossKind, LossSum, PValue, Tolerance};
use proptest::prelude::*;

use crate::reference::{for_each_row, parse_fraction};
use crate::{binary, fixed_cases, level, of_sums, tolerance, unit};

const UCB_REFERENCE: &str = include_str!("../reference/ucb_reference.csv");

#[test]
fn ucb_reference() {
    let mut checked = 0;
    for_each_row(UCB_REFERENCE, |text| {
        let (sum, examples) = (parse_fraction(&text("sum_losses")), text("n").parse().unwrap());
        for (name, p_value) in [
            ("hoeffding_ucb", PValue::Hoeffding),
            ("hoeffding_kl_ucb", PValue::HoeffdingKl),
            ("bentkus_ucb", PValue::Bentkus),
            ("hb_ucb", PValue::HoeffdingBentkus),
            ("clopper_pearson_ucb_ceil", PValue::Binomial),
        ] {
            let is_binomial = p_value == PValue::Binomial;
            let losses =
                if is_binomial { binary(sum.ceil() as usize, examples) } else { unit(sum, examples) };
            let bound = p_value.upper_bound_of_sum(losses, level(text("eps").parse().unwrap())).unwrap();
            let expected: f64 = text(name).parse().unwrap();
            assert!((bound / expected - 1.0).abs() < 1e-12, "{name}: {bound} instead of {expected}");
            checked += 1;
        }
    });
    assert_eq!(checked, 19 * 5);
}

/// These mistakes were found in other software: the Hoeffding part lost, and the sum rounded down.
#[test]
fn bounds_that_others_get_wrong() {
    let check = |sum: f64, expected: f64| {
        let bound = PValue::HoeffdingBentkus.upper_bound_of_sum(unit(sum, 100), level(0.05)).unwrap();
        assert!((bound - expected).abs() < 5e-5, "{bound} instead of {expected}");
    };
    check(0.0, 0.0295);
    let bentkus = PValue::Bentkus.upper_bound_of_sum(unit(5.25, 100), level(0.05)).unwrap();
    let bentkus_of_6 = PValue::Bentkus.upper_bound_of_sum(unit(6.0, 100), level(0.05)).unwrap();
    assert_eq!(bentkus, bentkus_of_6);
}

#[test]
fn bounds_that_are_refused() {
    let sum = unit(3.0, 10);
    let epsilon = level(0.05);
    assert!(matches!(PValue::Binomial.upper_bound_of_sum(sum, epsilon), Err(Error::KindMismatch { .. })));
    for p_value in [PValue::Betting, PValue::Asymptotic] {
        assert_eq!(p_value.upper_bound_of_sum(sum, epsilon), Err(Error::NeedsLosses { p_value }));
    }
    for &p_value in PValue::ALL {
        assert_eq!(p_value.upper_bound(&[], LossKind::Binary, epsilon), Err(Error::NoExamples));
        let error = p_value.upper_bound(&[0.0, 0.5], LossKind::Binary, epsilon).unwrap_err();
        assert!(error.to_string().contains("the loss of example 1 is 0.5"), "{p_value}: {error}");
    }
}

/// Expects a p-value of at most epsilon slightly above the bound, and a larger one slightly below it.
fn check_duality(bound: f64, epsilon: f64, log_p: impl Fn(Tolerance) -> f64) -> Result<(), TestCaseError> {
    let slack = 1e-9 * bound.abs().max(1e-6);
    if let Ok(above) = Tolerance::new(bound + slack) {
        prop_assert!(log_p(above) <= epsilon.ln(), "not rejected at {}, above {}", above, bound);
    }
    if let Ok(below) = Tolerance::new(bound - slack) {
        prop_assert!(log_p(below) > epsilon.ln(), "rejected at {}, below {}", below, bound);
    }
    Ok(())
}

fn losses(kind: LossKind) -> impl Strategy<Value = Vec<f64>> {
    let least = kind.least();
    let largest = prop_oneof![Just(1.0), Just(0.2)];
    largest.prop_flat_map(move |largest| {
        let loss = prop_oneof![Just(0.0), Just(largest), least * largest..=largest];
        prop::collection::vec(loss, 1..80)
    })
}

proptest! {
    #![proptest_config(fixed_cases())]

    #[test]
    fn dual_of_sums(n in 1_usize..3000, share in 0.0..=1.0, epsilon in 0.001..0.99) {
        let failures = (share * share * n as f64) as usize;
        for p_value in of_sums() {
            for losses in [binary(failures, n), unit(failures as f64 * 0.7, n)] {
                if p_value.check(losses.kind()).is_ok() {
                    let bound = p_value.upper_bound_of_sum(losses, level(epsilon)).unwrap();
                    let log_p = |delta| p_value.of_sum(losses, delta).unwrap().ln();
                    check_duality(bound, epsilon, log_p)?;
                }
            }
        }
    }

    #[test]
    fn dual_of_losses(losses in losses(LossKind::UnitInterval), epsilon in 0.01..0.9) {
        for p_value in [PValue::Betting, PValue::Asymptotic, PValue::HoeffdingBentkus] {
            let (kind, epsilon_level) = (LossKind::UnitInterval, level(epsilon));
            let bound = p_value.upper_bound(&losses, kind, epsilon_level).unwrap();
            let log_p = |delta| p_value.of_losses(&losses, kind, delta, epsilon_level).unwrap().ln();
            check_duality(bound, epsilon, log_p)?;
        }
    }

    #[test]
    fn dual_of_differences(losses in losses(LossKind::Difference), epsilon in 0.01..0.9) {
        for p_value in [PValue::Betting, PValue::Asymptotic, PValue::HoeffdingBentkus, PValue::Hoeffding] {
            let (kind, epsilon_level) = (LossKind::Difference, level(epsilon));
            let bound = p_value.upper_bound(&losses, kind, epsilon_level).unwrap();
            prop_assert!((-1.0..=1.0).contains(&bound));
            let log_p = |delta| p_value.of_losses(&losses, kind, delta, epsilon_level).unwrap().ln();
            check_duality(bound, epsilon, log_p)?;
        }
    }

    /// With less error probability the bound is larger.
    #[test]
    fn surer_bounds_are_larger(losses in losses(LossKind::UnitInterval), a in 0.01..0.9, b in 0.01..0.9) {
        let sum = LossSum::of(&losses, LossKind::UnitInterval).unwrap();
        let (surer, laxer): (f64, f64) = if a < b { (a, b) } else { (b, a) };
        for p_value in of_sums().filter(|&p_value| p_value != PValue::Binomial) {
            let bound = |epsilon| p_value.upper_bound_of_sum(sum, level(epsilon)).unwrap();
            prop_assert!(bound(surer) >= bound(laxer), "{}", p_value);
        }
    }
}

/// The bound of a sample decides as its p-value does.
#[test]
fn median_bounds_of_the_literature() {
    // Constant losses have no variance, so the bound of betting lies far below the others.
    let losses = [0.05; 100];
    let bound = |p_value: PValue| p_value.upper_bound(&losses, LossKind::UnitInterval, level(0.05)).unwrap();
    assert!((bound(PValue::HoeffdingBentkus) - 0.1173).abs() < 1e-4);
    assert!(bound(PValue::Betting) < 0.09);
    let log_p = PValue::Betting
        .of_losses(&losses, LossKind::UnitInterval, tolerance(bound(PValue::Betting) * 1.0001), level(0.05))
        .unwrap();
    assert!(log_p.rejected_at(level(0.05)));
}
