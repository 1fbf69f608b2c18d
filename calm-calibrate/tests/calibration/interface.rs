//! Tests of tables, options, results and errors.

use calm_calibrate::{
    Calibration, CalibrationOptions, Error, ErrorProbability, InvalidLoss, LossKind, LossSum, LossTable,
    PValue, Procedure, Tolerance, calibrate, positive_part_risk_loss,
};

use crate::tolerance;

/// Makes 200 losses with this mean, the same for all examples.
fn constant(mean: f64) -> Vec<f64> {
    vec![mean; 200]
}

fn table(rows: &[(f64, f64)]) -> LossTable {
    LossTable::new(rows.iter().map(|row| row.0).collect(), rows.iter().map(|row| constant(row.1)).collect())
        .unwrap()
}

fn paper(delta: f64) -> CalibrationOptions {
    CalibrationOptions::paper(tolerance(delta))
}

#[test]
fn returns_the_last_that_passed_before_the_first_failure() {
    let check = |rows: &[(f64, f64)], certified: &[f64]| {
        let calibration = calibrate(&table(rows), &paper(0.1)).unwrap();
        assert_eq!(calibration.certified, certified, "{rows:?}");
        assert_eq!(calibration.threshold, certified.last().copied().unwrap_or(1.0));
        assert_eq!(calibration.fallback, certified.is_empty());
    };
    check(&[(0.9, 0.01), (0.8, 0.02), (0.7, 0.2), (0.6, 0.3)], &[0.9, 0.8]);
    check(&[(0.9, 0.01), (0.8, 0.2), (0.7, 0.0)], &[0.9]);
    check(&[(0.9, 0.2), (0.8, 0.0)], &[]);
    check(&[(0.9, 0.0), (0.0, 0.0)], &[0.9, 0.0]);
    check(&[(1.0, 0.0), (0.9, 0.01), (0.8, 0.2)], &[0.9]);
    check(&[(1.0, 0.0), (0.9, 0.2)], &[]);
    check(&[(1.0, 0.0)], &[]);
}

#[test]
fn bonferroni_returns_the_least_certified() {
    let options = CalibrationOptions { procedure: Procedure::Bonferroni, ..paper(0.1) };
    let calibration = calibrate(&table(&[(0.9, 0.2), (0.8, 0.01), (0.7, 0.3)]), &options).unwrap();
    assert_eq!((calibration.threshold, calibration.certified.as_slice()), (0.8, [0.8].as_slice()));
}

/// The full model takes no share of epsilon: with or without its row, everything else is the same.
#[test]
fn the_full_model_needs_no_test() {
    for name in Procedure::NAMES {
        for p_value in [PValue::HoeffdingBentkus, PValue::Betting] {
            let procedure = name.parse().unwrap();
            let options = CalibrationOptions { p_value, procedure, ..paper(0.1) };
            let without = calibrate(&table(&[(0.9, 0.04), (0.8, 0.056)]), &options).unwrap();
            let with = calibrate(&table(&[(1.0, 1e-9), (0.9, 0.04), (0.8, 0.056)]), &options).unwrap();
            assert_eq!(with, without);
            assert_eq!(with.thresholds, [0.9, 0.8]);
        }
    }
}

#[test]
fn the_result_says_how_it_came_about() {
    let calibration = calibrate(&table(&[(1.0, 0.0), (0.9, 0.02), (0.8, 0.09)]), &paper(0.1)).unwrap();
    assert_eq!(calibration.examples, 200);
    assert_eq!(calibration.thresholds.len(), calibration.p_values.len());
    for (p, log_p) in calibration.p_values.iter().zip(&calibration.log_p_values) {
        assert_eq!(*p, log_p.p());
    }
    assert!((calibration.empirical_loss() - 0.02).abs() < 1e-15);
    assert_eq!(calibrate(&table(&[(0.9, 0.5)]), &paper(0.1)).unwrap().empirical_loss(), 0.0);

    let json = serde_json::to_value(&calibration).unwrap();
    assert_eq!(json["p_value"], "hoeffding-bentkus");
    assert_eq!(json["procedure"], "fixed-sequence");
    assert_eq!(json["loss_kind"], "unit");
    assert_eq!(json["delta"], 0.1);
    assert_eq!(json["epsilon"], 0.05);
    assert_eq!(json["fallback"], false);
    assert_eq!(json["certified"], serde_json::json!([0.9]));
    let read: Calibration = serde_json::from_value(json).unwrap();
    assert_eq!(read, calibration);
}

#[test]
fn a_result_out_of_range_is_not_read() {
    let calibration = calibrate(&table(&[(0.9, 0.02)]), &paper(0.1)).unwrap();
    let json = serde_json::to_string(&calibration).unwrap();
    let check = |from: &str, to: &str, message: &str| {
        let error = serde_json::from_str::<Calibration>(&json.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    };
    check("\"delta\":0.1", "\"delta\":1.0", "the tolerance delta must lie in (0, 1), found 1");
    check("hoeffding-bentkus", "wishful", "unknown p-value `wishful`: there are hoeffding, hoeffding-kl");
}

#[test]
fn tables_that_are_refused() {
    let check = |thresholds: &[f64], losses: &[&[f64]], expected: Error| {
        let losses = losses.iter().map(|row| row.to_vec()).collect();
        assert_eq!(LossTable::new(thresholds.to_vec(), losses), Err(expected));
    };
    check(&[], &[], Error::NoThresholds);
    check(&[0.5], &[], Error::RowCount { thresholds: 1, rows: 0 });
    check(&[0.5], &[&[]], Error::NoExamples);
    check(&[0.5, 1.5], &[&[0.0], &[0.0]], Error::InvalidThreshold { threshold_index: 1, threshold: 1.5 });
    let unordered = Error::ThresholdOrder { threshold_index: 1, threshold: 0.6, previous: 0.5 };
    check(&[0.5, 0.6], &[&[0.0], &[0.0]], unordered);
    check(
        &[0.5, 0.5],
        &[&[0.0], &[0.0]],
        Error::ThresholdOrder { threshold_index: 1, threshold: 0.5, previous: 0.5 },
    );
    let short = Error::RowLength { threshold_index: 1, threshold: 0.4, expected: 2, found: 1 };
    check(&[0.5, 0.4], &[&[0.0, 0.0], &[0.0]], short);
    let nan = LossTable::new(vec![f64::NAN], vec![vec![0.0]]);
    assert!(matches!(nan, Err(Error::InvalidThreshold { threshold_index: 0, .. })));
}

#[test]
fn losses_that_are_refused() {
    let check = |kind: LossKind, bad: f64, message: &str| {
        let mut losses = vec![vec![0.0; 20]; 2];
        losses[1][17] = bad;
        let table = LossTable::new(vec![0.9, 0.8], losses).unwrap();
        let options = CalibrationOptions { loss_kind: kind, ..paper(0.1) };
        assert_eq!(calibrate(&table, &options).unwrap_err().to_string(), message);
    };
    let unit = LossKind::UnitInterval;
    check(unit, f64::NAN, "threshold 1 (0.8): the loss of example 17 is NaN, which is not in [0, 1]");
    check(unit, -0.25, "threshold 1 (0.8): the loss of example 17 is -0.25, which is not in [0, 1]");
    check(unit, f64::INFINITY, "threshold 1 (0.8): the loss of example 17 is inf, which is not in [0, 1]");
    check(LossKind::Binary, 0.5, "threshold 1 (0.8): the loss of example 17 is 0.5, which is not in {0, 1}");

    for bad in [0.25, f64::NAN] {
        let table = LossTable::new(vec![1.0, 0.9], vec![vec![0.0, bad], vec![0.0, 0.0]]).unwrap();
        let error = calibrate(&table, &paper(0.1)).unwrap_err();
        assert!(matches!(error, Error::FullModelLoss { example: 1, .. }), "{error}");
    }
}

/// All losses of the sample are 0 or 1, but they were not declared to be binary.
#[test]
fn the_kind_of_loss_is_not_guessed() {
    let table = LossTable::new(vec![0.9], vec![vec![0.0; 100]]).unwrap();
    let options = CalibrationOptions { p_value: PValue::Binomial, ..paper(0.1) };
    let error = calibrate(&table, &options).unwrap_err();
    assert_eq!(error.to_string(), "the binomial p-value does not hold for losses of kind unit");
    let declared = CalibrationOptions { loss_kind: LossKind::Binary, ..options };
    assert_eq!(calibrate(&table, &declared).unwrap().threshold, 0.9);
}

#[test]
fn sums_that_are_refused() {
    let check = |sum: f64, examples: usize, kind: LossKind, ok: bool| {
        assert_eq!(LossSum::new(sum, examples, kind).is_ok(), ok, "{sum} of {examples} {kind} losses");
    };
    check(0.0, 0, LossKind::UnitInterval, false);
    check(1.5, 2, LossKind::UnitInterval, true);
    check(2.5, 2, LossKind::UnitInterval, false);
    check(-0.5, 2, LossKind::UnitInterval, false);
    check(f64::NAN, 2, LossKind::UnitInterval, false);
    check(1.5, 2, LossKind::Binary, false);
    check(2.0, 2, LossKind::Binary, true);
    let expected = InvalidLoss { example: 1, loss: 2.0, kind: LossKind::UnitInterval };
    assert_eq!(LossSum::of(&[0.5, 2.0], LossKind::UnitInterval), Err(expected.into()));
    assert_eq!(LossSum::of(&[], LossKind::Binary), Err(Error::NoExamples));
}

#[test]
fn levels_lie_strictly_between_0_and_1() {
    for text in ["0", "1", "-0.1", "1.5", "nan", "inf", "five percent"] {
        assert!(text.parse::<Tolerance>().is_err(), "{text}");
        let error = text.parse::<ErrorProbability>().unwrap_err().to_string();
        assert!(error.starts_with("the error probability epsilon must lie in (0, 1), found"), "{error}");
    }
    assert_eq!("0.25".parse::<Tolerance>().unwrap().to_string(), "0.25");
    assert_eq!(ErrorProbability::PAPER, ErrorProbability::new(0.05).unwrap());
}

#[test]
fn names_are_read_as_they_are_written() {
    for &p_value in PValue::ALL {
        assert_eq!(p_value.to_string().parse(), Ok(p_value));
    }
    for name in Procedure::NAMES {
        assert_eq!(name.parse::<Procedure>().unwrap().to_string(), name);
    }
    assert_eq!("unit".parse(), Ok(LossKind::UnitInterval));
    let error = "bayes".parse::<Procedure>().unwrap_err().to_string();
    assert_eq!(
        error,
        "unknown procedure `bayes`: there are bonferroni, holm, fixed-sequence, multi-start, graphical \
         and pareto"
    );
}

#[test]
fn positive_part_of_the_risk_difference() {
    assert_eq!(positive_part_risk_loss(0.75, 0.5), Ok(0.25));
    assert_eq!(positive_part_risk_loss(0.5, 0.75), Ok(0.0));
    // A NaN must not become a loss of 0, and a risk in percent must not pass as one in [0, 1].
    assert!(positive_part_risk_loss(f64::NAN, 0.5).is_err());
    assert!(positive_part_risk_loss(0.5, f64::NAN).is_err());
    let error = positive_part_risk_loss(43.0, 42.5).unwrap_err().to_string();
    assert_eq!(error, "the early-exit output's risk must lie in [0, 1], found 43");
}
