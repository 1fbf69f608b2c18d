//! The statistics against independent values, against exact enumeration and against simulated calibrations.
//!
//! What catches which mistake (each was made once, to see it caught):
//!
//! | mistake | caught by |
//! |---|---|
//! | sum rounded down, factor e forgotten or Hoeffding's part lost without losses, in Hoeffding-Bentkus | `reference` (simulations do not see the first two) |
//! | sum rounded up after a division by n, or added up without compensation | `reference::sums_*` |
//! | tail of the binomial distribution cut early, or taken from the wrong side | `reference::large_samples` |
//! | binomial p-value on losses that are not declared binary | `interface` |
//! | sequence walked past a failure, first failing threshold returned | `procedures`, `simulation` |
//! | epsilon not divided in Bonferroni's procedure, or divided for the full model too | `procedures`, `interface` |
//! | no test at all, only a mean below delta | `simulation` |
//! | NaN taken for a loss of 0 | `interface` |
//! | delta and epsilon exchanged | does not compile: see the documentation of the crate |

// Helpers outside of test functions need it too: to panic is how a test fails.
#![allow(clippy::unwrap_used)]

mod betting;
mod bounds;
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

/// The p-values that know no more of a sample than its sum.
fn of_sums() -> impl Iterator<Item = PValue> {
    PValue::ALL.iter().copied().filter(|p_value| p_value.needs_only_the_sum())
}

/// The same cases in every run; `PROPTEST_CASES` asks for more of them.
fn fixed_cases() -> Config {
    Config { rng_seed: RngSeed::Fixed(0), failure_persistence: None, ..Config::default() }
}
