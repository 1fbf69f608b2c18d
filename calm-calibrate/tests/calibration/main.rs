//! Tests of the statistics against independent values, exact enumeration and simulated calibrations.
//!
//! The table says which test catches which mistake (each was made once, to see it caught).
//!
//! | mistake | caught by |
//! |---|---|
//! | sum rounded down, in Hoeffding-Bentkus | `reference`, `bounds::ucb_reference`, `validity::two_point_losses` (calibrations do not see it) |
//! | factor e forgotten, or Hoeffding's part lost without losses | `reference`, `bounds` (calibrations do not see it) |
//! | sum rounded up after a division by n, or added up without compensation | `reference::sums_*` |
//! | rest of a rescaled sum lost before rounding up | `reference::a_little_above_a_whole_number` |
//! | tail of the binomial distribution cut early, or taken from the wrong side | `reference::large_samples` |
//! | binomial p-value on losses that are not declared binary | `interface`, `pareto::what_is_refused` |
//! | differences, or their tolerance, not rescaled | `reference::rescaled_differences`, `properties`, `wrong_procedures::wrong_p_values` |
//! | normal approximation taken for a p-value | `wrong_procedures::wrong_p_values` |
//! | n instead of n - 1 in it, or its series cut short | `reference::asymptotic_far_into_the_tails` |
//! | bet that sees its own loss | `p_value::betting::tests`, `e_process::the_expected_capital_is_1`, `betting`, `simulation` (on binary losses only), `wrong_procedures::wrong_betting` |
//! | losses sorted before betting, or the luckiest of several orders | `betting`, `simulation`, `wrong_procedures::wrong_betting` |
//! | largest capitals of several parts multiplied | `betting::capitals_beyond_a_double`, `wrong_procedures::wrong_betting` |
//! | last capital instead of the largest, bets not capped or tuned for another level | `betting::*_reference` |
//! | two-sided bets | `betting`, `wrong_procedures::wrong_betting` |
//! | upper bound below 0 with bets above the capital | `betting::upper_bounds_hold_over_all_paths` |
//! | upper bound never below the mean, or of differences not scaled back | `bounds::dual_of_*` |
//! | largest capital taken for an e-value, bets of an open end wrong | `e_process::the_expected_capital_is_1`, `e_process::the_first_bets` |
//! | looking again and again at a p-value of a fixed number of losses | `wrong_procedures::peeking` |
//! | thresholds of a sequential calibration certified out of order | `e_process::peeking_keeps_the_guarantee` |
//! | sequence walked past a failure, first failing threshold returned | `procedures`, `interface`, `simulation`, `wrong_procedures::wrong_ends_of_the_sequence` |
//! | epsilon not divided in Bonferroni's procedure or among starts, or by one start too few | `procedures`, `simulation` (if not divided at all), `wrong_procedures::wrong_family_wise_procedures` |
//! | epsilon divided for the full model too | `interface` |
//! | Holm past its first failure, or with levels one rank off | `procedures` |
//! | graph whose level is kept and given away, or whose transitions stay | `procedures`, `simulation` |
//! | graph that tests without a level, or makes level out of roundings | `procedures::no_level_no_rejection`, `procedures::roundings_make_no_level` |
//! | p below the level instead of at most | `procedures::a_p_value_equal_to_the_level_is_rejected` |
//! | order or direction learnt on the losses that are tested | `pareto`, `wrong_procedures::wrong_family_wise_procedures` |
//! | least instead of greatest p-value of several risks | `pareto`, `properties::the_greatest_of_several_risks` |
//! | no test at all, only a mean below delta | `wrong_procedures` |
//! | conformal risk control without the additional loss, or on losses not made monotone | `conformal` |
//! | violations compared with one less than their quantile | `simulation::pass_rule*` |
//! | refused losses that count | `pieces::a_refused_piece_does_not_count`, `e_process::a_refused_loss_does_not_count` |
//! | NaN taken for a loss of 0, or for one below a limit | `interface`, `properties::losses_of_quantiles_and_differences` |
//! | delta and epsilon exchanged | does not compile: see the documentation of the crate |

// Helpers outside of test functions need this too: a test fails by panicking.
#![allow(clippy::unwrap_used)]

mod betting;
mod bounds;
mod check;
mod conformal;
mod e_process;
mod formats;
mod interface;
#[cfg(feature = "files")]
mod loss_file;
mod pareto;
mod pieces;
mod procedures;
mod properties;
mod reference;
mod scenario;
mod simulation;
mod validity;
mod wrong_procedures;

use calm_calibrate::{ErrorProbability, LossKind, LossSum, PValue, Tolerance};
use proptest::test_runner::{Config, RngSeed};

fn tolerance(value: f64) -> Tolerance {
    Tolerance::new(value).unwrap()
}

fn level(value: f64) -> ErrorProbability {
    ErrorProbability::new(value).unwrap()
}

fn unit(sum: f64, examples: usize) -> LossSum {
    LossSum::new(sum, examples, LossKind::UnitInterval).unwrap()
}

fn binary(failures: usize, examples: usize) -> LossSum {
    LossSum::new(failures as f64, examples, LossKind::Binary).unwrap()
}

/// The p-values that need to know only the sum of a sample.
fn of_sums() -> impl Iterator<Item = PValue> {
    PValue::ALL.iter().copied().filter(|p_value| p_value.needs_only_the_sum())
}

/// Runs the same cases every time; `PROPTEST_CASES` asks for more of them.
fn fixed_cases() -> Config {
    Config { rng_seed: RngSeed::Fixed(0), failure_persistence: None, ..Config::default() }
}
