//! Wrong procedures, most of them found in public code, must not pass the rule that the right ones pass.

use calm_calibrate::procedure::{bonferroni, fixed_sequence, multi_start};
use calm_calibrate::{LogP, LossKind, LossSum, PValue};
use rand::RngExt;
use rand::seq::SliceRandom;

use crate::scenario::{Counts, DELTA, Losses, REPETITIONS, Risks, accepted, repeat, rng};
use crate::{level, tolerance};

const EPSILON: f64 = 0.05;

fn caught(counts: Counts) -> bool {
    counts.violations > accepted(EPSILON)
}

/// Runs a fixed sequence with a p-value of one's own.
fn with_p_value(losses: Losses, risks: Risks, examples: usize, log_p: impl Fn(Vec<f64>) -> f64) -> Counts {
    repeat(losses, risks, examples, |table| {
        let log_p: Vec<LogP> =
            table.into_iter().map(|losses| LogP::from_ln(log_p(losses).min(0.0)).unwrap()).collect();
        fixed_sequence(&log_p, level(EPSILON))
    })
}

fn log_p(p_value: PValue, losses: &[f64], kind: LossKind) -> f64 {
    p_value.of_losses(losses, kind, tolerance(DELTA), level(EPSILON)).unwrap().ln()
}

#[test]
fn wrong_ends_of_the_sequence() {
    type Choose<'a> = &'a dyn Fn(&[LogP], &[f64]) -> Option<usize>;
    let passes = |log_p: &LogP| log_p.rejected_at(level(EPSILON));
    let run = |choose: Choose| {
        repeat(Losses::Bernoulli, Risks::Cliff, 100, |table| {
            let sums: Vec<LossSum> =
                table.iter().map(|losses| LossSum::of(losses, LossKind::Binary).unwrap()).collect();
            let means: Vec<f64> = sums.iter().map(|sum| sum.mean()).collect();
            let of_sum = |&sum: &LossSum| PValue::Binomial.of_sum(sum, tolerance(DELTA)).unwrap();
            choose(&sums.iter().map(of_sum).collect::<Vec<_>>(), &means).into_iter().collect()
        })
    };
    let first_failing = |p: &[LogP]| p.iter().position(|log_p| !passes(log_p));
    assert!(!caught(run(&|p, _| first_failing(p).and_then(|i| i.checked_sub(1)))), "the right one");
    assert!(caught(run(&|p, _| first_failing(p))), "the first that fails");
    assert!(caught(run(&|p, _| p.iter().rposition(passes))), "the last that passes");
    assert!(caught(run(&|_, means| means.iter().rposition(|&mean| mean <= DELTA))), "no test at all");
}

#[test]
fn wrong_p_values() {
    let check = |name: &str, counts: Counts| assert!(caught(counts), "{name}: {counts:?}");
    check(
        "normal approximation",
        with_p_value(Losses::Bernoulli, Risks::Cliff, 20, |losses| {
            log_p(PValue::Asymptotic, &losses, LossKind::Binary)
        }),
    );
    check(
        "mean below delta",
        with_p_value(Losses::Beta, Risks::Cliff, 200, |losses| {
            if losses.iter().sum::<f64>() <= DELTA * losses.len() as f64 { -10.0 } else { 0.0 }
        }),
    );
    check(
        "Hoeffding-Bentkus of differences as they are",
        with_p_value(Losses::ThreePoint, Risks::Cliff, 200, |losses| {
            let sum: f64 = losses.iter().sum();
            if sum < 0.0 {
                return f64::NEG_INFINITY;
            }
            let sum = LossSum::new(sum, losses.len(), LossKind::UnitInterval).unwrap();
            PValue::HoeffdingBentkus.of_sum(sum, tolerance(DELTA)).unwrap().ln()
        }),
    );
}

/// Computes ln of the capital after each loss.
///
/// The variance behind a bet is that of the first `i + seen` losses.
fn ln_capitals(losses: &[f64], seen: usize, sign: f64) -> Vec<f64> {
    let (mut sum, mut squares, mut variances) = (0.5, 0.25, vec![0.25]);
    for (i, loss) in losses.iter().enumerate() {
        sum += loss;
        squares += (loss - sum / (i + 2) as f64).powi(2);
        variances.push(squares / (i + 2) as f64);
    }
    let mut ln_capital = 0.0;
    let capital_after = |(i, loss): (usize, &f64)| {
        let aim = -2.0 * f64::ln(EPSILON) / losses.len() as f64;
        let bet = sign * (aim / variances[i + seen]).sqrt().min(1.0);
        ln_capital += (-bet * (loss - DELTA)).ln_1p();
        ln_capital
    };
    losses.iter().enumerate().map(capital_after).collect()
}

fn largest(ln_capitals: &[f64]) -> f64 {
    ln_capitals.iter().copied().fold(0.0, f64::max)
}

#[test]
fn wrong_betting() {
    let check = |name: &str, counts: Counts| assert!(caught(counts), "{name}: {counts:?}");
    let (losses, risks) = (Losses::Bernoulli, Risks::Cliff);
    let right = with_p_value(losses, risks, 100, |losses| -largest(&ln_capitals(&losses, 0, 1.0)));
    assert!(!caught(right), "the right one: {right:?}");
    check(
        "a bet that sees its own loss",
        with_p_value(losses, risks, 200, |losses| -largest(&ln_capitals(&losses, 1, 1.0))),
    );
    check(
        "the sum of the largest capitals of both halves",
        with_p_value(losses, risks, 100, |losses| {
            let path = ln_capitals(&losses, 0, 1.0);
            let middle = path[49];
            let second_half: Vec<f64> = path[50..].iter().map(|ln_capital| ln_capital - middle).collect();
            -largest(&path[..50]) - largest(&second_half)
        }),
    );
    check(
        "two-sided",
        with_p_value(losses, Risks::Bump, 1000, |losses| {
            let sides = [1.0, -1.0].map(|sign| largest(&ln_capitals(&losses, 0, sign)));
            2.0_f64.ln() - sides[0].max(sides[1])
        }),
    );
    check(
        "sorted losses",
        with_p_value(Losses::Beta, risks, 100, |mut losses| {
            losses.sort_by(f64::total_cmp);
            log_p(PValue::Betting, &losses, LossKind::UnitInterval)
        }),
    );
    check(
        "the luckiest of 20 orders",
        with_p_value(losses, risks, 100, |mut losses| {
            let mut rng = rng(losses.iter().sum::<f64>() as u64);
            let shuffled = |_| {
                losses.shuffle(&mut rng);
                log_p(PValue::Betting, &losses, LossKind::Binary)
            };
            (0..20).map(shuffled).fold(0.0, f64::min)
        }),
    );
}

/// The test looks after every example at a p-value that holds for one fixed number of them.
#[test]
fn peeking() {
    let counts = with_p_value(Losses::Bernoulli, Risks::Cliff, 300, |losses| {
        let (mut failures, mut least) = (0.0, 0.0_f64);
        for (i, loss) in losses.iter().enumerate() {
            failures += loss;
            let sum = LossSum::new(failures, i + 1, LossKind::Binary).unwrap();
            least = least.min(PValue::Binomial.of_sum(sum, tolerance(DELTA)).unwrap().ln());
        }
        least
    });
    assert!(caught(counts), "{counts:?}");
}

/// Gives a procedure independent uniform p-values of true hypotheses.
///
/// So it uses all the level that it takes.
fn with_procedure(hypotheses: usize, reject: impl Fn(&[LogP]) -> Vec<usize>) -> Counts {
    let mut counts = Counts::default();
    for seed in 0..REPETITIONS {
        let mut rng = rng(seed);
        let p: Vec<LogP> = (0..hypotheses).map(|_| LogP::from_p(rng.random()).unwrap()).collect();
        counts.add(reject(&p).into_iter().map(|_| 1.0));
    }
    counts
}

#[test]
fn wrong_family_wise_procedures() {
    let caught = |reject: &dyn Fn(&[LogP]) -> Vec<usize>| caught(with_procedure(8, reject));
    assert!(!caught(&|p| bonferroni(p, level(EPSILON))), "right");
    assert!(!caught(&|p| multi_start(p, &[0, 4], level(EPSILON))), "right");
    assert!(!caught(&|p| fixed_sequence(p, level(EPSILON))), "right");
    assert!(caught(&|p| bonferroni(p, level(8.0 * EPSILON))), "level not divided");
    assert!(caught(&|p| multi_start(p, &[0, 7], level(2.0 * EPSILON))), "one start more than the divisor");
    let in_order_of_p = |p: &[LogP]| {
        let mut sorted = p.to_vec();
        sorted.sort_by(|a, b| a.ln().total_cmp(&b.ln()));
        fixed_sequence(&sorted, level(EPSILON))
    };
    assert!(caught(&in_order_of_p), "order learnt on the losses that are tested");
    let better_direction = |p: &[LogP]| {
        let reversed: Vec<LogP> = p.iter().rev().copied().collect();
        let rejected = [fixed_sequence(p, level(EPSILON)), fixed_sequence(&reversed, level(EPSILON))];
        rejected.into_iter().flatten().collect()
    };
    assert!(caught(&better_direction), "direction learnt on the losses that are tested");
}
