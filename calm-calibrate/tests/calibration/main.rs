//! The statistics against independent values, against exact enumeration and against simulated calibrations.
//!
//! What catches which mistake (each was tried):
//!
//! | mistake | caught by |
//! |---|---|
//! | sum rounded down in Bentkus' inequality, factor e forgotten, wrong branch without losses | `reference`, `table` |
//! | sum rounded after dividing by n | `reference` (row of n = 100, S = 7 in `sums_are_not_rounded_through_the_mean`) |
//! | binomial p-value on losses that are not binary | `interface` |
//! | p-value too small: mean compared with delta, signed losses in Hoeffding-Bentkus | `validity`, `simulation` |
//! | the first failing threshold returned, the sequence walked past a failure | `interface`, `simulation` |
//! | delta and epsilon exchanged | does not compile (documentation of the crate) |

mod interface;
mod procedures;
mod properties;
mod reference;
mod simulation;
mod validity;

use calm_calibrate::{LossKind, LossSum, Tolerance};

fn tolerance(value: f64) -> Tolerance {
    Tolerance::new(value).unwrap()
}

fn unit(sum: f64, examples: usize) -> LossSum {
    LossSum::new(sum, examples, LossKind::UnitInterval).unwrap()
}

fn binary(failures: usize, examples: usize) -> LossSum {
    LossSum::new(failures as f64, examples, LossKind::Binary).unwrap()
}
