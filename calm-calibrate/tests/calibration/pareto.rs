//! Tests of Pareto testing: several parameters, several risks, a sequence learnt on one part of the examples.

use calm_calibrate::{
    CalibrationOptions, Cost, Error, LogP, LossKind, LossTable, PValue, Procedure, Risk, Split, Tolerance,
    calibrate, pareto_front, pareto_testing,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::scenario::{Counts, DELTA, Losses, REPETITIONS, accepted, rng};
use crate::{level, tolerance};

fn risk(losses: &[Vec<f64>], loss_kind: LossKind, p_value: PValue) -> Risk<'_> {
    Risk { losses, loss_kind, p_value, delta: tolerance(DELTA) }
}

/// True risks of the configurations (threshold, decay) for two losses, and their costs.
///
/// Half of them are not tolerable, because of only one of the two risks and by the least amount.
fn grid() -> Vec<([f64; 2], f64)> {
    let above = DELTA + 1e-9;
    let configuration = |threshold: usize, decay: usize| {
        let (safe, unsafe_) = (0.01 * (threshold + decay) as f64, above);
        let risks = match (threshold + 2 * decay) % 4 {
            0 | 1 => [safe, safe],
            2 => [unsafe_, 0.0],
            _ => [0.0, unsafe_],
        };
        (risks, 10.0 - threshold as f64 - 0.1 * decay as f64)
    };
    (0..5).flat_map(|threshold| (0..3).map(move |decay| configuration(threshold, decay))).collect()
}

type Table = Vec<Vec<f64>>;

fn draw(losses: Losses, examples: usize, which: usize, rng: &mut ChaCha8Rng) -> Table {
    let mut row = |mean: f64| (0..examples).map(|_| losses.draw(mean, rng)).collect();
    grid().iter().map(|(risks, _)| row(risks[which])).collect()
}

fn repeat(
    (first, second): (Losses, Losses),
    examples: usize,
    certify: impl Fn(&Table, &Table, &[f64]) -> Vec<usize>,
) -> Counts {
    let costs: Vec<f64> = grid().iter().map(|(_, cost)| *cost).collect();
    let mut counts = Counts::default();
    for seed in 0..REPETITIONS {
        let mut rng = rng(seed);
        let (first, second) = (draw(first, examples, 0, &mut rng), draw(second, examples, 1, &mut rng));
        let certified = certify(&first, &second, &costs);
        counts.add(certified.into_iter().map(|index| grid()[index].0[0].max(grid()[index].0[1])));
    }
    counts
}

#[test]
fn keeps_its_guarantee() {
    let check = |losses: (Losses, Losses), p_values: (PValue, PValue), examples: usize, min: f64| {
        let counts = repeat(losses, examples, |first, second, costs| {
            let risks = [risk(first, losses.0.kind(), p_values.0), risk(second, losses.1.kind(), p_values.1)];
            let found = pareto_testing(&risks, &[Cost::Known(costs)], level(0.05), Split::default()).unwrap();
            let cheapest = found.certified.iter().copied().min_by(|&a, &b| costs[a].total_cmp(&costs[b]));
            assert_eq!(found.best, cheapest);
            found.certified
        });
        assert!(counts.violations <= accepted(0.05), "{losses:?} {p_values:?}: {counts:?}");
        assert!(counts.certified as f64 >= min * REPETITIONS as f64, "{losses:?} {p_values:?}: {counts:?}");
    };
    check((Losses::Bernoulli, Losses::Bernoulli), (PValue::Binomial, PValue::Binomial), 120, 0.7);
    check((Losses::Beta, Losses::Bernoulli), (PValue::Betting, PValue::Binomial), 120, 0.7);
    check((Losses::Bernoulli, Losses::Uniform), (PValue::Betting, PValue::Betting), 60, 0.0);
    check((Losses::Beta, Losses::Beta), (PValue::HoeffdingBentkus, PValue::Betting), 40, 0.0);
}

/// The sequence is learnt on the very examples that it is tested on.
#[test]
fn no_split_is_caught() {
    let counts = repeat((Losses::Bernoulli, Losses::Bernoulli), 120, |first, second, _| {
        let log_p = |losses: &[f64]| {
            PValue::Binomial.of_losses(losses, LossKind::Binary, tolerance(DELTA), level(0.05)).unwrap()
        };
        let of_both = |(first, second): (&Vec<f64>, &Vec<f64>)| LogP::of_all([log_p(first), log_p(second)]);
        let log_p: Vec<LogP> = first.iter().zip(second).map(of_both).collect();
        (0..log_p.len()).filter(|&index| log_p[index].rejected_at(level(0.05))).collect()
    });
    assert!(counts.violations > accepted(0.05), "{counts:?}");
}

/// In `calibrate`, the sequence is learnt on the first part and tested on the second, and on nothing else.
#[test]
fn thresholds_by_hand() {
    let split = Split::new(0.25, 3).unwrap();
    let mut rng = rng(0);
    let rows: Table = [0.02, 0.3, 0.01, 0.03]
        .map(|mean| (0..400).map(|_| 2.0 * mean * rng.random::<f64>()).collect())
        .to_vec();
    let is_selection = split.first_part(400).unwrap();
    let part = |row: &[f64], first: bool| -> Vec<f64> {
        row.iter()
            .zip(&is_selection)
            .filter(|(_, is_first)| **is_first == first)
            .map(|(loss, _)| *loss)
            .collect()
    };
    for p_value in [PValue::Betting, PValue::HoeffdingBentkus] {
        let options = CalibrationOptions {
            p_value,
            procedure: Procedure::Pareto { split },
            ..CalibrationOptions::paper(tolerance(DELTA))
        };
        let table = LossTable::new(vec![0.9, 0.8, 0.7, 0.6], rows.clone()).unwrap();
        let calibration = calibrate(&table, &options).unwrap();
        let log_p = |first: bool| -> Vec<LogP> {
            let of_row = |row: &Vec<f64>| {
                let losses = part(row, first);
                p_value.of_losses(&losses, LossKind::UnitInterval, tolerance(DELTA), level(0.05)).unwrap()
            };
            rows.iter().map(of_row).collect()
        };
        assert_eq!((calibration.examples, &calibration.log_p_values), (300, &log_p(false)));
        // The mean at 0.7 is the least, so the two thresholds above it are dominated: it has less risk at a
        // lower threshold.
        let selection = log_p(true);
        assert!(selection[2] < selection[3]);
        assert_eq!((calibration.sequence, calibration.threshold), (vec![0.7, 0.6], 0.6));
    }
}

#[test]
fn fronts_by_hand() {
    let check = |objectives: &[&[f64]], expected: &[usize]| {
        let objectives: Vec<Vec<f64>> = objectives.iter().map(|point| point.to_vec()).collect();
        assert_eq!(pareto_front(&objectives), expected, "{objectives:?}");
    };
    check(&[], &[]);
    check(&[&[1.0, 1.0]], &[0]);
    check(&[&[0.0, 2.0], &[1.0, 1.0], &[2.0, 0.0]], &[0, 1, 2]);
    check(&[&[0.0, 2.0], &[1.0, 2.0], &[2.0, 0.0]], &[0, 2]);
    check(&[&[1.0, 1.0], &[1.0, 1.0], &[2.0, 1.0]], &[0, 1]);
    check(&[&[3.0], &[1.0], &[2.0]], &[1]);
}

/// Each half has 100 examples.
///
/// Configurations 0 to 2 have no loss there by the first risk, only 2 has a little by the second, and they
/// differ in their costs. Configuration 3 always fails, and 4 is as good as 1 but dearer in both costs, so no
/// test is spent on it.
#[test]
fn by_hand() {
    let good = vec![0.0; 200];
    let losses = vec![good.clone(), good.clone(), good.clone(), vec![1.0; 200], good.clone()];
    let slightly: Table = (0..5).map(|i| if i == 2 { vec![0.02; 200] } else { good.clone() }).collect();
    let risks = [
        risk(&losses, LossKind::Binary, PValue::Binomial),
        risk(&slightly, LossKind::UnitInterval, PValue::HoeffdingBentkus),
    ];
    let measured: Table = [3.0, 2.0, 4.0, 1.0, 5.0].iter().map(|&cost| vec![cost; 200]).collect();
    let costs = [Cost::Known(&[3.0, 2.0, 1.0, 0.0, 5.0]), Cost::Measured(&measured)];
    let found = pareto_testing(&risks, &costs, level(0.05), Split::default()).unwrap();
    // Configuration 0 is dominated by 1 as well. The p-value of 2 is larger than that of 1.
    assert_eq!(found.sequence, [1, 2, 3]);
    assert_eq!((found.certified.as_slice(), found.best, found.examples), ([1, 2].as_slice(), Some(2), 100));
    assert_eq!(found.log_p_values.len(), 5);
    assert_eq!(found.log_p_values[3].p(), 1.0);
    let of_2 = PValue::HoeffdingBentkus
        .of_losses(&[0.02; 100], LossKind::UnitInterval, tolerance(DELTA), level(0.05))
        .unwrap();
    assert_eq!(found.log_p_values[2], of_2, "the greatest p-value of its risks");
}

#[test]
fn what_is_refused() {
    let losses = vec![vec![0.0; 10]; 2];
    let good = risk(&losses, LossKind::Binary, PValue::Binomial);
    let costs = [1.0, 2.0];
    let run = |risks: &[Risk], costs: &[Cost]| pareto_testing(risks, costs, level(0.05), Split::default());
    assert!(run(&[good], &[Cost::Known(&costs)]).is_ok());
    assert_eq!(run(&[good], &[]), Err(Error::NoCosts));
    assert_eq!(run(&[], &[Cost::Known(&costs)]), Err(Error::NoThresholds));
    let one_missing = vec![vec![0.0; 10]];
    let other = risk(&one_missing, LossKind::Binary, PValue::Binomial);
    assert!(matches!(run(&[good, other], &[Cost::Known(&costs)]), Err(Error::UnequalCounts { .. })));
    let short = vec![vec![0.0; 10], vec![0.0; 9]];
    let other = risk(&short, LossKind::Binary, PValue::Binomial);
    assert!(matches!(run(&[other], &[Cost::Known(&costs)]), Err(Error::UnequalCounts { .. })));
    assert!(matches!(run(&[good], &[Cost::Known(&[1.0])]), Err(Error::UnequalCounts { .. })));
    assert!(matches!(run(&[good], &[Cost::Measured(&short)]), Err(Error::UnequalCounts { .. })));
    assert!(matches!(run(&[good], &[Cost::Known(&[1.0, f64::NAN])]), Err(Error::OutOfRange { .. })));
    let undeclared = risk(&losses, LossKind::UnitInterval, PValue::Binomial);
    assert!(matches!(run(&[undeclared], &[Cost::Known(&costs)]), Err(Error::KindMismatch { .. })));
    let halves = vec![vec![0.5; 10]; 2];
    let other = risk(&halves, LossKind::Binary, PValue::Binomial);
    assert!(matches!(run(&[other], &[Cost::Known(&costs)]), Err(Error::InvalidLoss(_))));
    let single = vec![vec![0.0]; 2];
    let other =
        Risk { delta: Tolerance::new(0.5).unwrap(), ..risk(&single, LossKind::Binary, PValue::Binomial) };
    assert_eq!(run(&[other], &[Cost::Known(&costs)]), Err(Error::TooFewToSplit { examples: 1 }));
}
