//! Results of files are checked against themselves.

use calm_calibrate::{
    Calibration, CalibrationOptions, LogP, LossKind, LossTable, PValue, Procedure, calibrate,
};

use crate::tolerance;

/// Losses of 200 examples, of which every k-th is a half: the first two thresholds are certified for a delta
/// of 0.1.
fn result(procedure: Procedure) -> Calibration {
    let row = |period: usize| (1..=200).map(|i| if i % period == 0 { 0.5 } else { 0.0 }).collect();
    let losses = [1000, 50, 20, 3, 2].map(row).into();
    let table = LossTable::new(vec![1.0, 0.9, 0.8, 0.7, 0.5], losses).unwrap();
    let options = CalibrationOptions::new(tolerance(0.1), LossKind::UnitInterval);
    calibrate(&table, &CalibrationOptions { procedure, ..options }).unwrap()
}

#[test]
fn every_result_agrees_with_itself() {
    for name in Procedure::NAMES {
        let calibration = result(name.parse().unwrap());
        assert!(!calibration.fallback, "{name}");
        let read: Calibration = serde_json::from_str(&serde_json::to_string(&calibration).unwrap()).unwrap();
        assert_eq!(read.check(), Ok(()), "{name}");
    }
    let grid_of_the_full_model = LossTable::new(vec![1.0], vec![vec![0.0; 9]]).unwrap();
    let options = CalibrationOptions::new(tolerance(0.1), LossKind::UnitInterval);
    assert_eq!(calibrate(&grid_of_the_full_model, &options).unwrap().check(), Ok(()));
}

#[test]
fn edited_results_do_not() {
    let check = |edit: fn(&mut Calibration), expected: &str| {
        let mut calibration = result(Procedure::FixedSequence);
        assert_eq!(calibration.certified, [0.9, 0.8]);
        edit(&mut calibration);
        let found = calibration.check().unwrap_err().to_string();
        assert!(found.contains(expected), "{found}\ninstead of {expected}");
    };
    check(
        |c| c.threshold = 0.7,
        "the threshold is 0.7 (fallback: false), but the least certified one is 0.8",
    );
    check(|c| c.threshold = 0.9, "the threshold is 0.9");
    check(|c| c.fallback = true, "fallback: true");
    check(|c| c.certified.clear(), "[] are said to be certified, but the p-values certify [0.9, 0.8]");
    check(|c| c.certified.push(0.7), "[0.9, 0.8, 0.7] are said to be certified");
    check(|c| c.examples = 0, "there are no examples");
    check(|c| c.thresholds.truncate(c.thresholds.len() - 1), "4 mean losses instead of 3");
    check(|c| c.p_values.truncate(c.p_values.len() - 1), "3 p-values instead of 4");
    check(|c| c.log_p_values.truncate(c.log_p_values.len() - 1), "3 logarithms of p-values instead of 4");
    check(|c| c.thresholds.swap(0, 1), "threshold 1 (0.9) does not lie below the one before it (0.8)");
    check(|c| c.thresholds[0] = 1.5, "threshold 0 is 1.5, which is not in [0, 1]");
    check(|c| c.thresholds[0] = 1.0, "the full model is among the tested thresholds");
    check(|c| c.sequence.truncate(c.sequence.len() - 1), "the sequence is no order of the thresholds");
    check(|c| c.sequence[0] = 0.8, "the sequence is no order of the thresholds");
    check(|c| c.p_values[3] = 0.01, "the p-value 0.01 has the logarithm");
    check(|c| c.log_p_values[0] = LogP::from_p(0.9).unwrap(), "has the logarithm");
    check(|c| c.empirical_losses[0] = -0.5, "-0.5 is no mean of losses of kind unit");
    check(|c| c.p_value = PValue::Binomial, "the binomial p-value does not hold for losses of kind unit");
    check(|c| c.procedure = Procedure::MultiStart { starts: 0 }, "multi-start has no starts");
}
