//! Losses in pieces, several tolerances at once, splits and trials give the same results in other ways.

use calm_calibrate::{
    CalibrationOptions, Calibrator, Error, Evidence, LossKind, LossTable, PValue, Procedure, SampleDesign,
    Split, Tolerance, TrialOptions, calibrate, calibrate_each, run_trials,
};
use proptest::prelude::*;

use crate::{fixed_cases, level, tolerance};

fn losses(kind: LossKind) -> BoxedStrategy<f64> {
    match kind {
        LossKind::Binary => prop_oneof![4 => Just(0.0), 1 => Just(1.0)].boxed(),
        LossKind::UnitInterval => prop_oneof![3 => Just(0.0), 1 => 0.0..0.5].boxed(),
        LossKind::Difference => prop_oneof![2 => Just(0.0), 1 => -0.5..0.5].boxed(),
    }
}

/// Generates a kind with losses of that kind at 4 thresholds.
fn tables() -> impl Strategy<Value = (LossKind, Vec<Vec<f64>>)> {
    let kinds = prop::sample::select(LossKind::ALL);
    let rows = |kind: LossKind| {
        (2_usize..120).prop_flat_map(move |examples| {
            prop::collection::vec(prop::collection::vec(losses(kind), examples), 4)
        })
    };
    kinds.prop_flat_map(move |kind| (Just(kind), rows(kind)))
}

const THRESHOLDS: [f64; 4] = [0.9, 0.8, 0.5, 0.1];

fn deltas() -> [Tolerance; 3] {
    [0.3, 0.1, 0.2].map(tolerance)
}

fn every_choice(kind: LossKind) -> impl Iterator<Item = CalibrationOptions> {
    let procedures = Procedure::NAMES.iter().map(|name| name.parse::<Procedure>().unwrap());
    let p_values = PValue::ALL.iter().copied().filter(move |p_value| p_value.check(kind).is_ok());
    procedures.flat_map(move |procedure| {
        let options = CalibrationOptions::new(tolerance(0.2), kind);
        let with =
            move |p_value| CalibrationOptions { p_value, procedure: procedure.clone(), ..options.clone() };
        p_values.clone().map(with)
    })
}

proptest! {
    #![proptest_config(fixed_cases())]

    #[test]
    fn chunks_do_not_matter((kind, rows) in tables(), sizes in prop::collection::vec(1_usize..40, 1..4)) {
        let table = LossTable::new(THRESHOLDS.to_vec(), rows.clone()).unwrap();
        for options in every_choice(kind) {
            let whole = calibrate_each(&table, &options, &deltas()).unwrap();
            let mut calibrator = Calibrator::new(&THRESHOLDS, rows[0].len(), &options, &deltas()).unwrap();
            for (threshold_index, row) in rows.iter().enumerate() {
                let mut rest = row.as_slice();
                for &size in sizes.iter().cycle() {
                    let (piece, after) = rest.split_at(size.min(rest.len()));
                    calibrator.push(threshold_index, piece).unwrap();
                    rest = after;
                    if rest.is_empty() {
                        break;
                    }
                }
            }
            prop_assert_eq!(&calibrator.finish().unwrap(), &whole);
        }
    }

    #[test]
    fn several_tolerances_are_separate((kind, rows) in tables()) {
        let table = LossTable::new(THRESHOLDS.to_vec(), rows).unwrap();
        for options in every_choice(kind) {
            let together = calibrate_each(&table, &options, &deltas()).unwrap();
            for (delta, calibration) in deltas().into_iter().zip(&together) {
                let alone = calibrate(&table, &CalibrationOptions { delta, ..options.clone() }).unwrap();
                prop_assert_eq!(&alone, calibration);
            }
        }
    }

    /// The pieces are rounds over the thresholds instead of whole rows.
    #[test]
    fn thresholds_may_take_turns((kind, rows) in tables()) {
        let table = LossTable::new(THRESHOLDS.to_vec(), rows.clone()).unwrap();
        let options = CalibrationOptions::new(tolerance(0.2), kind);
        let mut calibrator = Calibrator::new(&THRESHOLDS, rows[0].len(), &options, &[options.delta]).unwrap();
        for example in 0..rows[0].len() {
            for (threshold_index, row) in rows.iter().enumerate().rev() {
                calibrator.push(threshold_index, &[row[example]]).unwrap();
            }
        }
        prop_assert_eq!(&calibrator.finish().unwrap()[0], &calibrate(&table, &options).unwrap());
    }

    #[test]
    fn evidence_in_chunks_is_that_of_the_sample(row in prop::collection::vec(losses(LossKind::UnitInterval), 1..3000), size in 1_usize..1500) {
        for p_value in [PValue::Betting, PValue::Asymptotic, PValue::HoeffdingBentkus] {
            let (loss_kind, examples, tuned_for) = (LossKind::UnitInterval, row.len(), level(0.05));
            let design = SampleDesign { p_value, loss_kind, examples, tuned_for };
            let mut evidence = Evidence::new(&design, &deltas()).unwrap();
            row.chunks(size).for_each(|piece| evidence.push(piece).unwrap());
            for (index, delta) in deltas().into_iter().enumerate() {
                let whole = p_value.of_losses(&row, loss_kind, delta, tuned_for).unwrap();
                prop_assert_eq!(evidence.log_p(index).unwrap(), whole);
            }
            prop_assert_eq!(evidence.examples(), examples);
        }
    }

    #[test]
    fn splits_divide(examples in 0_usize..500, share in 0.01..0.99, seed: u64) {
        let split = Split::new(share, seed).unwrap();
        let size = (share * examples as f64).round() as usize;
        match split.parts(examples) {
            Ok((first, second)) => {
                prop_assert_eq!((first.len(), second.len()), (size, examples - size));
                prop_assert_eq!(split.parts(examples).unwrap(), (first.clone(), second.clone()));
                let is_first = split.first_part(examples).unwrap();
                prop_assert!(first.iter().all(|&i| is_first[i]) && second.iter().all(|&i| !is_first[i]));
                let mut all: Vec<usize> = first.into_iter().chain(second).collect();
                all.sort_unstable();
                prop_assert_eq!(all, (0..examples).collect::<Vec<_>>());
            }
            Err(error) => {
                prop_assert_eq!(error, Error::TooFewToSplit { examples });
                prop_assert!(size == 0 || size == examples);
            }
        }
    }
}

/// The division is part of a published result, so it must not change with a release.
#[test]
fn splits_stay_what_they_are() {
    let (first, second) = Split::new(0.5, 1).unwrap().parts(8).unwrap();
    assert_eq!((first, second), (SPLIT_OF_8.0.to_vec(), SPLIT_OF_8.1.to_vec()));
    assert_ne!(Split::new(0.5, 2).unwrap().parts(8).unwrap().0, SPLIT_OF_8.0);
}

const SPLIT_OF_8: ([usize; 4], [usize; 4]) = ([3, 4, 5, 2], [7, 1, 6, 0]);

#[test]
fn splits_that_are_refused() {
    for share in [0.0, 1.0, -0.5, f64::NAN] {
        assert!(matches!(Split::new(share, 0), Err(Error::OutOfRange { .. })), "{share}");
    }
}

/// A failed push leaves nothing behind, in particular no place that a later loss would be missing from.
#[test]
fn a_refused_piece_does_not_count() {
    let check = |procedure: &str, threshold: f64, refused: &[f64]| {
        let procedure = procedure.parse().unwrap();
        let options = CalibrationOptions {
            procedure,
            ..CalibrationOptions::new(tolerance(0.2), LossKind::UnitInterval)
        };
        let new = || Calibrator::new(&[1.0, 0.5], 4, &options, &[options.delta]).unwrap();
        let (mut with, mut without) = (new(), new());
        let other = if threshold == 1.0 { 1 } else { 0 };
        let index = 1 - other;
        with.push(other, &[0.0; 4]).unwrap();
        without.push(other, &[0.0; 4]).unwrap();
        with.push(index, &[0.0]).unwrap();
        assert!(with.push(index, refused).is_err());
        assert!(matches!(
            with.clone().finish(),
            Err(Error::ExampleCount { expected: 4, found: 1, threshold: found, .. }) if found == threshold
        ));
        with.push(index, &[0.0, 0.0, 0.0]).unwrap();
        without.push(index, &[0.0; 4]).unwrap();
        assert_eq!(with.finish().unwrap(), without.finish().unwrap());
    };
    for procedure in ["fixed-sequence", "pareto"] {
        check(procedure, 0.5, &[0.0, f64::NAN, 0.0]);
        check(procedure, 0.5, &[0.0; 4]);
        check(procedure, 1.0, &[0.0, 0.5, 0.0]);
        check(procedure, 1.0, &[0.0; 4]);
    }
}

#[test]
fn sorted_losses_are_reported() {
    let check = |losses: Vec<f64>, p_value: PValue, expected: &[f64]| {
        let shuffled: Vec<f64> = (0..losses.len()).map(|i| losses[(i * 7 + 3) % losses.len()]).collect();
        let table = LossTable::new(vec![0.9, 0.5], vec![shuffled, losses]).unwrap();
        let options =
            CalibrationOptions { p_value, ..CalibrationOptions::new(tolerance(0.2), LossKind::UnitInterval) };
        assert_eq!(calibrate(&table, &options).unwrap().sorted_losses, expected);
    };
    let ascending = |n: usize| -> Vec<f64> { (0..n).map(|i| i as f64 / n as f64).collect() };
    check(ascending(100), PValue::Betting, &[0.5]);
    // A p-value of the sum does not depend on the order.
    check(ascending(100), PValue::HoeffdingBentkus, &[]);
    // Descending losses lose money, so they help nobody to certify anything.
    check(ascending(100).into_iter().rev().collect(), PValue::Betting, &[]);
    // A single loss at the end ascends in one of 100 orders, and constant losses have nothing to sort.
    check((0..100).map(|i| if i == 99 { 0.5 } else { 0.0 }).collect(), PValue::Betting, &[]);
    check(vec![0.3; 100], PValue::Betting, &[]);
    // There are 50 zeros and then 50 ones.
    check((0..100).map(|i| f64::from(u8::from(i >= 50))).collect(), PValue::Betting, &[0.5]);
    // One pair is out of order.
    let mut nearly = ascending(100);
    nearly.swap(40, 41);
    check(nearly, PValue::Betting, &[]);
}

#[test]
fn trials_are_calibrations_of_their_splits() {
    let rows: Vec<Vec<f64>> = (0..4)
        .map(|t| (0..100).map(|i| if (i * 7 + t) % 20 < 2 * t { 0.5 } else { 0.0 }).collect())
        .collect();
    let mut thresholds = vec![1.0];
    thresholds.extend(THRESHOLDS);
    let mut with_full_model = vec![vec![0.0; 100]];
    with_full_model.extend(rows);
    let table = LossTable::new(thresholds.clone(), with_full_model).unwrap();
    let options = CalibrationOptions::new(tolerance(0.5), LossKind::UnitInterval);
    let trial_options = TrialOptions { trials: 20, calibration_share: 0.7, seed: 5 };
    let splits = trial_options.splits(100).unwrap();
    assert_eq!(splits.len(), 20);
    let by_delta = run_trials(&table, &options, &deltas(), &splits).unwrap();
    assert_eq!(by_delta.len(), 3);
    for (delta, trials) in deltas().into_iter().zip(&by_delta) {
        for ((index, split), trial) in splits.iter().enumerate().zip(trials) {
            assert_eq!((split.calibration.len(), split.test.len()), (70, 30));
            assert!(split.test.is_sorted());
            let (calibration, test) = Split::new(0.7, 5 + index as u64).unwrap().parts(100).unwrap();
            assert_eq!(split.calibration, calibration);
            assert!(test.iter().all(|example| split.test.contains(example)));

            let pick = |threshold_index: usize, examples: &[usize]| -> Vec<f64> {
                examples.iter().map(|&example| table.losses(threshold_index)[example]).collect()
            };
            let rows = (0..5).map(|i| pick(i, &split.calibration)).collect();
            let part = LossTable::new(thresholds.clone(), rows).unwrap();
            let expected = calibrate(&part, &CalibrationOptions { delta, ..options.clone() }).unwrap();
            let threshold = trial.threshold_index.map_or(1.0, |index| thresholds[index]);
            assert_eq!((trial.trial, trial.delta, threshold), (index, delta, expected.threshold));
            assert_eq!(trial.threshold_index.is_none(), expected.fallback);
            let mean = |examples: &[usize]| {
                let losses = trial.threshold_index.map(|index| pick(index, examples));
                losses.map_or(0.0, |losses| losses.iter().sum::<f64>() / losses.len() as f64)
            };
            let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
            assert!(close(trial.calibration_loss, mean(&split.calibration)));
            assert!(close(trial.test_loss, mean(&split.test)));
            assert!(close(trial.pool_loss, mean(&(0..100).collect::<Vec<_>>())));
        }
    }
}

/// Draws without replacement from a pool whose mean is known, which is what the paper's protocol estimates.
///
/// Tolerances just below the pool's mean at a threshold are where a wrong certification is easiest.
#[test]
fn trials_keep_the_guarantee_on_their_pool() {
    let one_in =
        |period: usize| (0..2000).map(|i| f64::from(u8::from(i % period == 0))).collect::<Vec<f64>>();
    let table = LossTable::new(vec![0.9, 0.5], vec![one_in(50), one_in(10)]).unwrap();
    let options = CalibrationOptions::new(tolerance(0.1 - 1e-9), LossKind::Binary);
    let trial_options = TrialOptions { trials: 2000, calibration_share: 0.05, seed: 0 };
    let splits = trial_options.splits(2000).unwrap();
    let trials = run_trials(&table, &options, &[options.delta], &splits).unwrap().remove(0);
    let violations = trials.iter().filter(|trial| trial.pool_loss > trial.delta.get()).count();
    assert!(violations <= crate::scenario::accepted(0.05), "{violations}");
    assert!(violations > 20, "sharp enough to be a test: {violations}");
    assert!(trials.iter().filter(|trial| trial.threshold_index.is_some()).count() > 1000);
}
