//! Tests of laws of the p-values.

use calm_calibrate::p_value::{bentkus, binomial, hoeffding, hoeffding_bentkus, hoeffding_kl};
use calm_calibrate::{
    CalibrationOptions, LogP, LossKind, LossSum, LossTable, PValue, calibrate, exceeds, signed_risk_loss,
};
use proptest::prelude::*;

use crate::{binary, fixed_cases, level, of_sums, tolerance, unit};

/// Compares two logarithms, whose order rounding may change a little.
fn at_most(lesser: f64, greater: f64) -> bool {
    lesser <= greater + 1e-10 * greater.abs().max(1e-3)
}

/// Generates sample sizes from 1 to 1e7, about as many in each decade.
fn examples() -> impl Strategy<Value = usize> {
    (0.0..=7.0).prop_map(|exponent: f64| 10f64.powf(exponent) as usize)
}

/// Generates tolerances over the whole of (0, 1), including the ends as far as doubles reach.
fn delta() -> impl Strategy<Value = f64> {
    prop_oneof![0.001..0.999, (-300.0..-1.0).prop_map(|e: f64| 10f64.powf(e)), Just(1.0 - f64::EPSILON / 2.0)]
}

/// Returns a fraction of the examples, often close to `delta`, where the decision is made.
fn sum(examples: usize, delta: f64, position: f64, near: bool) -> f64 {
    let mean = if near { (delta * (0.7 + 0.4 * position)).min(1.0) } else { position };
    (mean * examples as f64).min(examples as f64)
}

proptest! {
    #![proptest_config(fixed_cases())]

    #[test]
    fn always_a_probability(n in examples(), d in delta(), position in 0.0..=1.0, near: bool) {
        let s = sum(n, d, position, near);
        for p_value in of_sums() {
            let losses = if p_value == PValue::Binomial { binary(s.ceil() as usize, n) } else { unit(s, n) };
            let log_p = p_value.of_sum(losses, tolerance(d)).unwrap();
            prop_assert!(log_p.ln() <= 0.0 && log_p.ln().is_finite(), "{}: {}", p_value, log_p.ln());
            prop_assert!((0.0..=1.0).contains(&log_p.p()));
        }
    }

    #[test]
    fn sharper_ones_are_smaller(n in examples(), d in delta(), position in 0.0..=1.0, near: bool) {
        let s = sum(n, d, position, near);
        let (losses, d) = (unit(s, n), tolerance(d));
        let combined = hoeffding_bentkus(losses, d);
        prop_assert!(combined <= hoeffding_kl(losses, d) && combined <= bentkus(losses, d));
        prop_assert!(at_most(hoeffding_kl(losses, d).ln(), hoeffding(losses, d).ln()));
        let whole = binary(s.ceil() as usize, n);
        prop_assert!(at_most(binomial(whole, d).unwrap().ln(), hoeffding_bentkus(whole, d).ln()));
    }

    #[test]
    fn grows_with_the_losses(n in examples(), d in delta(), a in 0.0..=1.0, b in 0.0..=1.0, near: bool) {
        let (low, high): (f64, f64) = if a < b { (a, b) } else { (b, a) };
        let (low, high) = (sum(n, d, low, near), sum(n, d, high, near));
        for p_value in of_sums() {
            let log_p = |s: f64| {
                let losses = if p_value == PValue::Binomial { binary(s.ceil() as usize, n) } else { unit(s, n) };
                p_value.of_sum(losses, tolerance(d)).unwrap().ln()
            };
            prop_assert!(at_most(log_p(low), log_p(high)), "{}: {} {}", p_value, log_p(low), log_p(high));
        }
    }

    #[test]
    fn falls_with_the_tolerance(n in examples(), position in 0.0..=1.0, a in 0.001..0.999, b in 0.001..0.999) {
        let (strict, lax): (f64, f64) = if a < b { (a, b) } else { (b, a) };
        let s = sum(n, strict, position, true);
        for p_value in of_sums() {
            let losses = if p_value == PValue::Binomial { binary(s.ceil() as usize, n) } else { unit(s, n) };
            let log_p = |d: f64| p_value.of_sum(losses, tolerance(d)).unwrap().ln();
            prop_assert!(at_most(log_p(lax), log_p(strict)), "{}: {} {}", p_value, log_p(lax), log_p(strict));
        }
    }

    #[test]
    fn a_mean_of_delta_or_more_proves_nothing(n in examples(), d in delta(), excess in 0.0..=1.0) {
        let mean: f64 = d + excess * (1.0 - d);
        let losses = unit((mean * n as f64).min(n as f64), n);
        for p_value in [PValue::Hoeffding, PValue::HoeffdingKl, PValue::Bentkus, PValue::HoeffdingBentkus] {
            prop_assert!(p_value.of_sum(losses, tolerance(d)).unwrap().p() > 1.0 - 1e-9, "{}", p_value);
        }
    }

    #[test]
    fn the_order_of_the_examples_does_not_matter(
        losses in prop::collection::vec(0.0..=1.0, 1..200),
        rotation in any::<prop::sample::Index>(),
    ) {
        let mut rotated = losses.clone();
        rotated.rotate_left(rotation.index(losses.len()));
        let sum = |losses: &[f64]| LossSum::of(losses, LossKind::UnitInterval).unwrap().sum();
        prop_assert!((sum(&losses) - sum(&rotated)).abs() <= 1e-15 * sum(&losses));
    }

    #[test]
    fn a_lower_loss_certifies_no_less(
        rows in prop::collection::vec(prop::collection::vec(prop_oneof![Just(0.0), 0.0..=0.4], 60), 1..6),
        factor in 0.0..=1.0,
    ) {
        let thresholds: Vec<f64> = (0..rows.len()).map(|i| 0.9 - 0.1 * i as f64).collect();
        let options = CalibrationOptions::paper(tolerance(0.2));
        let lower = rows.iter().map(|row| row.iter().map(|loss| loss * factor).collect()).collect();
        let before = calibrate(&LossTable::new(thresholds.clone(), rows).unwrap(), &options).unwrap();
        let after = calibrate(&LossTable::new(thresholds, lower).unwrap(), &options).unwrap();
        prop_assert!(after.threshold <= before.threshold);
    }

    /// Hoeffding-Bentkus knows only the sum; a gambler sees one loss after the other.
    #[test]
    fn the_order_matters_to_betting_only(losses in prop::collection::vec(0.0..=1.0, 2..60)) {
        let log_p = |p_value: PValue, losses: &[f64]| {
            p_value.of_losses(losses, LossKind::UnitInterval, tolerance(0.5), level(0.05)).unwrap()
        };
        let mut ascending = losses.clone();
        ascending.sort_by(f64::total_cmp);
        let descending: Vec<f64> = ascending.iter().rev().copied().collect();
        for p_value in of_sums().filter(|&p_value| p_value != PValue::Binomial) {
            prop_assert!((log_p(p_value, &ascending).ln() - log_p(p_value, &losses).ln()).abs() < 1e-12);
        }
        let lucky = log_p(PValue::Betting, &ascending);
        prop_assert!(lucky <= log_p(PValue::Betting, &descending));
        if ascending[0] < 0.4 && descending[0] > 0.6 {
            prop_assert!(lucky < log_p(PValue::Betting, &descending));
        }
    }

    /// The losses are rescaled to the unit interval, as `(loss + 1) / 2` with `(delta + 1) / 2`.
    #[test]
    fn differences_are_rescaled(n in 1_usize..3000, d in 0.001..0.999, position in -1.0..=1.0) {
        let sum: f64 = position * n as f64;
        let differences = LossSum::new(sum, n, LossKind::Difference).unwrap();
        for p_value in of_sums().filter(|&p_value| p_value != PValue::Binomial) {
            let found = p_value.of_sum(differences, tolerance(d)).unwrap().ln();
            let rescaled = unit(0.5 * (sum + n as f64), n);
            let expected = p_value.of_sum(rescaled, tolerance(0.5 * (d + 1.0))).unwrap().ln();
            prop_assert!(at_most(found, expected) && at_most(expected, found), "{}", p_value);
        }
    }

    #[test]
    fn betting_never_says_more_than_1(
        losses in prop::collection::vec(-1.0..=1.0, 1..300), d in delta(), tuned_for in 1e-6..0.99,
    ) {
        let log_p =
            PValue::Betting.of_losses(&losses, LossKind::Difference, tolerance(d), level(tuned_for)).unwrap();
        prop_assert!(log_p.ln() <= 0.0 && log_p.ln().is_finite());
        let bound = PValue::Asymptotic.of_losses(&losses, LossKind::Difference, tolerance(d), level(0.05));
        prop_assert!(bound.unwrap().ln() <= 0.0);
    }
}

#[test]
fn the_greatest_of_several_risks() {
    let log_p = |p: f64| LogP::from_p(p).unwrap();
    assert_eq!(LogP::of_all([log_p(0.01), log_p(0.3), log_p(0.02)]), log_p(0.3));
    assert_eq!(LogP::of_all([]), log_p(1.0));
}

#[test]
fn losses_of_quantiles_and_differences() {
    assert_eq!([0.2, 0.3, 0.300_000_1, f64::NAN].map(|loss| exceeds(loss, 0.3)), [0.0, 0.0, 1.0, 1.0]);
    assert_eq!(signed_risk_loss(0.25, 0.75), Ok(-0.5));
    assert!(signed_risk_loss(f64::NAN, 0.5).is_err() && signed_risk_loss(0.5, 1.5).is_err());
}

#[test]
fn defaults_follow_the_kind() {
    assert_eq!(PValue::default_for(LossKind::Binary), PValue::Binomial);
    assert_eq!(PValue::default_for(LossKind::UnitInterval), PValue::Betting);
    assert_eq!(PValue::default_for(LossKind::Difference), PValue::Betting);
}
