//! Tests of conformal risk control, which gives a guarantee on average over calibrations.

use calm_calibrate::{LossKind, LossTable, conformal_risk_control};
use rand::RngExt;

use crate::scenario::{DELTA, Losses, REPETITIONS, Risks, draw_table, rng, thresholds};
use crate::tolerance;

#[test]
fn by_hand() {
    let table = |rows: &[&[f64]]| {
        let thresholds = [1.0, 0.9, 0.8, 0.7][4 - rows.len()..].to_vec();
        LossTable::new(thresholds, rows.iter().map(|row| row.to_vec()).collect()).unwrap()
    };
    let check = |rows: &[&[f64]], kind: LossKind, delta: f64, threshold: f64, bounds: &[f64]| {
        let control = conformal_risk_control(&table(rows), kind, tolerance(delta)).unwrap();
        assert_eq!((control.threshold, control.fallback), (threshold, threshold == 1.0), "{rows:?}");
        assert_eq!((control.bounds.as_slice(), control.examples), (bounds, 3));
    };
    // The bound (sum + 1) / (n + 1) is equal to delta in the second row.
    let rows: [&[f64]; 3] = [&[0.0, 0.0, 0.0], &[0.5, 0.5, 0.0], &[0.5, 1.0, 0.5]];
    check(&rows, LossKind::UnitInterval, 0.5, 0.8, &[0.25, 0.5, 0.75]);
    check(&rows, LossKind::UnitInterval, 0.2, 1.0, &[0.25, 0.5, 0.75]);
    // A loss that falls again counts as if it did not.
    let falling: [&[f64]; 3] = [&[0.0, 0.0, 1.0], &[0.0, 1.0, 0.0], &[0.0, 0.0, 0.0]];
    check(&falling, LossKind::Binary, 0.5, 0.9, &[0.5, 0.75, 0.75]);
    // A gain does not make up for a loss of another example: the full model's loss is already 0.
    let gains: [&[f64]; 3] = [&[-1.0, -1.0, -1.0], &[-1.0, -1.0, 1.0], &[0.0, 0.0, -1.0]];
    check(&gains, LossKind::Difference, 0.5, 0.7, &[0.25, 0.5, 0.5]);
    assert!(conformal_risk_control(&table(&[&[0.5, 0.0, 0.0]]), LossKind::Binary, tolerance(0.1)).is_err());
}

/// Returns the mean of the true risk over calibrations, and how often it exceeds delta.
///
/// Example u fails at all thresholds whose risk exceeds u, so that losses are monotone and the grid gives the
/// risk.
fn repeat(examples: usize, choose: impl Fn(&LossTable) -> f64) -> (f64, f64) {
    let thresholds: Vec<f64> = (0..60).map(|i| 0.9 - 0.01 * f64::from(i)).collect();
    let risk = |i: usize| 0.005 * i as f64;
    let (mut sum, mut above) = (0.0, 0.0);
    for seed in 0..REPETITIONS {
        let mut rng = rng(seed);
        let draws: Vec<f64> = (0..examples).map(|_| rng.random()).collect();
        let row = |i| draws.iter().map(|&u| if u < risk(i) { 1.0 } else { 0.0 }).collect();
        let table = LossTable::new(thresholds.clone(), (0..60).map(row).collect()).unwrap();
        let threshold = choose(&table);
        let index = thresholds.iter().position(|&other| other == threshold);
        let risk = index.map_or(0.0, risk);
        sum += risk;
        above += f64::from(u8::from(risk > DELTA));
    }
    (sum / REPETITIONS as f64, above / REPETITIONS as f64)
}

/// Five standard errors, since a risk in [0, 0.3] has a standard deviation of at most 0.15.
const NOISE: f64 = 5.0 * 0.15 / 44.7;

#[test]
fn the_mean_risk_is_tolerable() {
    for examples in [20, 60, 200] {
        let (mean, above) = repeat(examples, |table| {
            conformal_risk_control(table, LossKind::Binary, tolerance(DELTA)).unwrap().threshold
        });
        assert!((DELTA - 0.03..=DELTA + NOISE).contains(&mean), "{examples}: {mean}");
        // This is what makes it another guarantee than that of a calibration.
        assert!(above > 0.25, "{examples}: {above}");
    }
}

/// Without the additional loss of 1 in the numerator, the mean risk with 10 examples is far above delta.
#[test]
fn the_mean_alone_is_caught() {
    let (mean, _) = repeat(10, |table| {
        let tolerable = |&i: &usize| table.losses(i).iter().sum::<f64>() / 10.0 <= DELTA;
        (0..60).take_while(tolerable).last().map_or(1.0, |i| table.thresholds()[i])
    });
    assert!(mean > DELTA + NOISE, "{mean}");
    let (mean, _) = repeat(10, |table| {
        conformal_risk_control(table, LossKind::Binary, tolerance(DELTA)).unwrap().threshold
    });
    assert!(mean <= DELTA + NOISE, "{mean}");
}

/// The losses are not monotone at all, and risks rise and fall.
#[test]
fn holds_for_losses_that_are_not_monotone() {
    for losses in [Losses::Bernoulli, Losses::Beta, Losses::ThreePoint] {
        for risks in [Risks::Cliff, Risks::Bump, Risks::Slope] {
            let mut sum = 0.0;
            for seed in 0..REPETITIONS {
                let table = LossTable::new(thresholds(), draw_table(losses, risks, 60, seed)).unwrap();
                let threshold =
                    conformal_risk_control(&table, losses.kind(), tolerance(DELTA)).unwrap().threshold;
                let index = thresholds().iter().position(|&other| other == threshold);
                sum += index.map_or(0.0, |index| risks.means()[index]);
            }
            assert!(sum / REPETITIONS as f64 <= DELTA + NOISE, "{losses:?} {risks:?}");
        }
    }
}
