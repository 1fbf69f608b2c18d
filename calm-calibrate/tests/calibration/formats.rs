//! Names and JSON are read back as they were written.

use calm_calibrate::{
    Calibration, CalibrationOptions, Error, ExpectationControl, Graph, LogP, LossKind, LossTable, PValue,
    Procedure, Split, TrialOptions, calibrate, conformal_risk_control,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::tolerance;

/// Writes `value`, and checks that it is read back as the same.
fn json<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) -> String {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value, "{text}");
    text
}

#[test]
fn log_p_values() {
    assert_eq!(json(&LogP::from_ln(-1234.5).unwrap()), "-1234.5");
    assert_eq!(json(&LogP::from_p(1.0).unwrap()), "0.0");
    // JSON has no infinity.
    assert_eq!(json(&LogP::from_p(0.0).unwrap()), "null");
    for wrong in ["0.5", "\"0\"", "1e-300"] {
        assert!(serde_json::from_str::<LogP>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn names() {
    for kind in LossKind::ALL {
        assert_eq!(json(kind), format!("\"{kind}\""));
        assert_eq!(kind.name().parse(), Ok(*kind));
    }
    for p_value in PValue::ALL {
        assert_eq!(json(p_value), format!("\"{p_value}\""));
        assert_eq!(p_value.name().parse(), Ok(*p_value));
    }
    for name in Procedure::NAMES {
        let procedure: Procedure = name.parse().unwrap();
        assert_eq!((procedure.name(), procedure.to_string().as_str()), (name, name));
        assert!(json(&procedure).contains(&format!("\"procedure\":\"{name}\"")));
    }
    assert_eq!(format!("{:>8}|", LossKind::Binary), "  binary|");
}

fn graph() -> Graph {
    Graph::new(vec![0.5, 0.25], vec![vec![0.0, 1.0], vec![0.5, 0.0]]).unwrap()
}

#[test]
fn procedures_with_parameters() {
    let check = |procedure: Procedure, expected: &str| assert_eq!(json(&procedure), expected);
    check(Procedure::MultiStart { starts: 3 }, r#"{"procedure":"multi-start","starts":3}"#);
    check(Procedure::Graphical { graph: None }, r#"{"procedure":"graphical"}"#);
    check(
        Procedure::Graphical { graph: Some(graph()) },
        r#"{"procedure":"graphical","graph":{"weights":[0.5,0.25],"transitions":[[0.0,1.0],[0.5,0.0]]}}"#,
    );
    check(
        Procedure::Pareto { split: Split::new(0.25, u64::MAX).unwrap() },
        r#"{"procedure":"pareto","split":{"share":0.25,"seed":18446744073709551615}}"#,
    );
}

#[test]
fn what_is_not_read() {
    let check = |text: &str, message: &str| {
        let error = serde_json::from_str::<Procedure>(text).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    };
    check(r#"{"procedure":"wishful"}"#, "unknown variant `wishful`");
    check(r#"{"procedure":"multi-start"}"#, "missing field `starts`");
    check(
        r#"{"procedure":"pareto","split":{"share":1.5,"seed":0}}"#,
        "the share of a split must lie in (0, 1), found 1.5",
    );
    check(r#"{"procedure":"pareto","split":{"share":0.5,"seed":0,"sede":1}}"#, "unknown field `sede`");
    check(
        r#"{"procedure":"graphical","graph":{"weights":[0.9,0.9],"transitions":[[0,0],[0,0]]}}"#,
        "the graph is not valid: the weights sums to 1.8",
    );
}

#[test]
fn graphs_that_are_refused() {
    let check = |weights: &[f64], transitions: &[&[f64]], message: &str| {
        let transitions = transitions.iter().map(|row| row.to_vec()).collect();
        let error = Graph::new(weights.to_vec(), transitions).unwrap_err();
        assert!(matches!(&error, Error::InvalidGraph { .. }));
        assert!(error.to_string().contains(message), "{error}");
    };
    check(&[0.5, 0.5], &[&[0.0, 1.0]], "2 weights but 1 rows of transitions");
    check(&[0.5, 0.5], &[&[0.0, 1.0], &[1.0]], "row 1 has 1 entries instead of 2");
    check(&[0.5, 0.6], &[&[0.0, 1.0], &[1.0, 0.0]], "which is more than 1");
    check(&[0.5, -0.5], &[&[0.0, 1.0], &[1.0, 0.0]], "the weights has the entry -0.5");
    check(&[0.5, f64::NAN], &[&[0.0, 1.0], &[1.0, 0.0]], "has the entry NaN");
    check(&[0.3, 0.3, 0.3], &[&[0.0, 0.6, 0.6], &[0.0; 3], &[0.0; 3]], "row 0 sums to 1.2");
    check(&[0.5, 0.5], &[&[0.0, 1.0], &[0.5, 0.5]], "hypothesis 1 gives to itself");
    // Because of rounding, ten tenths may be more or less than 1.
    assert!(Graph::new(vec![0.1; 10], vec![vec![0.0; 10]; 10]).is_ok());
    assert_eq!(Graph::holm(0).hypotheses(), 0);
    for graph in [Graph::holm(1), Graph::fallback(1), Graph::fixed_sequence(1)] {
        assert_eq!(graph, Graph::new(vec![1.0], vec![vec![0.0]]).unwrap());
    }
}

#[test]
fn results_of_every_procedure() {
    let table = LossTable::new(vec![0.9, 0.5], vec![vec![0.0; 400], vec![0.04; 400]]).unwrap();
    let mut procedures: Vec<Procedure> = Procedure::NAMES.iter().map(|name| name.parse().unwrap()).collect();
    procedures.push(Procedure::Graphical { graph: Some(graph()) });
    for procedure in procedures {
        for p_value in [PValue::Betting, PValue::Asymptotic, PValue::HoeffdingBentkus] {
            for kind in [LossKind::UnitInterval, LossKind::Difference] {
                let procedure = procedure.clone();
                let options = CalibrationOptions {
                    p_value,
                    procedure,
                    ..CalibrationOptions::new(tolerance(0.1), kind)
                };
                let calibration: Calibration = calibrate(&table, &options).unwrap();
                let text = json(&calibration);
                assert_eq!(text.contains("bets_tuned_for"), p_value == PValue::Betting, "{text}");
                assert!(!text.contains("sorted_losses"), "{text}");
            }
        }
    }
    let control = conformal_risk_control(&table, LossKind::UnitInterval, tolerance(0.1)).unwrap();
    json::<ExpectationControl>(&control);
    json(&TrialOptions::default());
    json(&Split::default());
}

/// A sorted sample is the one thing that must not get lost on the way to a file.
#[test]
fn the_warning_is_written() {
    let ascending = (0..100).map(|i| f64::from(i) / 100.0).collect();
    let table = LossTable::new(vec![0.5], vec![ascending]).unwrap();
    let options = CalibrationOptions::new(tolerance(0.1), LossKind::UnitInterval);
    assert!(json(&calibrate(&table, &options).unwrap()).contains("\"sorted_losses\":[0.5]"));
}
