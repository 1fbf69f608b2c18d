//! From a table of losses to a certified threshold: p-values, family-wise error control, calibration.
//!
//! A model with early exits has one knob, the threshold: the lower, the faster and the further from the full
//! model. Given the losses of some calibration prompts at a grid of thresholds, [`calibrate`] returns the
//! least threshold for which the expected loss is *proved* to be small, in the sense of Learn then Test
//! (Angelopoulos et al. 2021), as Confident Adaptive Language Modeling does (Schuster et al. 2022, section 4
//! and algorithm 1). The crate is plain statistics: it needs no model and no tensor library, and serves
//! anything with a knob and a bounded loss.
//!
//! # What is guaranteed
//!
//! For a tolerance `delta` and an error probability `epsilon` chosen beforehand,
//!
//! > P( expected loss at the returned threshold <= `delta` ) >= 1 - `epsilon`,
//!
//! where the probability is over the draw of the calibration prompts and the expectation over a new prompt
//! (the paper's definitions 1 and 2, proposition 1). It holds for every sample size, whatever the model and
//! the distribution of the prompts, and does not need the loss to be monotone in the threshold. It speaks of
//! the *mean* over prompts: single prompts may lose more, and once in 1/`epsilon` calibrations the mean may
//! too.
//!
//! When nothing can be certified the threshold is 1, which by definition never exits and so is the full
//! model, and [`Calibration::fallback`] says so. Few prompts, a small `delta` or a poor model end there; it
//! is not an error.
//!
//! # What is assumed, and what breaks it
//!
//! * Calibration prompts and later prompts are independent draws from one distribution. The unit is the
//!   prompt, never the token, and several prompts cut from one document are not independent. Prompts of
//!   another kind later on void the guarantee.
//! * The grid of thresholds, its order, the loss, the confidence measure, the p-value, `delta` and `epsilon`
//!   are fixed before anybody looks at the calibration losses. Trying three measures on the same prompts and
//!   keeping the best one needs `epsilon / 3` for each. What the data may choose, and how, is
//!   [`pareto_testing`]'s business.
//! * The order of the prompts was fixed without looking at their losses. [`PValue::Betting`], the default for
//!   losses that are not binary, depends on it: sorted ascending, anything would be certified. So every
//!   threshold sees the prompts in the same order, and [`Calibration::sorted_losses`] names those whose
//!   losses ascend suspiciously.
//! * The calibration prompts were not used to train the model or its exits.
//! * Losses are bounded and lie in the range that their [`LossKind`] declares. It is declared, never guessed
//!   from the values: a sample that happens to hold zeros and ones only does not make a loss binary.
//! * Threshold 1 is the full model and nothing else.
//! * The sample was not looked at and then enlarged. [`SequentialCalibration`] may be looked at as often as
//!   one likes.
//!
//! # Which loss, which p-value
//!
//! | to bound | loss of a prompt | kind | p-value |
//! |---|---|---|---|
//! | distance to the full model's output (the paper's equation 10) | any distance in `[0, 1]` | [`LossKind::UnitInterval`] | [`PValue::Betting`] |
//! | increase of a risk against references, gains not counted (equation 11) | [`positive_part_risk_loss`] | [`LossKind::UnitInterval`] | [`PValue::Betting`] |
//! | increase of a risk, which is what definition 2 says | [`signed_risk_loss`] | [`LossKind::Difference`] | [`PValue::Betting`] |
//! | share of outputs that differ | 0 or 1 | [`LossKind::Binary`] | [`PValue::Binomial`] |
//! | share of outputs that differ by more than d: a quantile | [`exceeds`] | [`LossKind::Binary`] | [`PValue::Binomial`] |
//!
//! [`CalibrationOptions::new`] takes these p-values, [`CalibrationOptions::paper`] the paper's
//! Hoeffding-Bentkus, which needs 1.5 to 4 times as many prompts for fractional losses. The signed difference
//! certifies several layers less than the positive part at the same tolerance, because outputs that change at
//! random gain as often as they lose. [`conformal_risk_control`] bounds less, only the expectation over
//! calibrations, and its result has a type of its own.
//!
//! # Symbols
//!
//! The literature swaps its letters; here the two numbers are types, [`Tolerance`] and [`ErrorProbability`],
//! and cannot be exchanged by accident.
//!
//! | quantity | here and CALM | Learn then Test |
//! |---|---|---|
//! | tolerated expected loss, [`Tolerance`] | delta | alpha |
//! | probability that the guarantee fails, [`ErrorProbability`] | epsilon | delta |
//!
//! ```compile_fail,E0308
//! use calm_calibrate::{CalibrationOptions, ErrorProbability};
//! let swapped = CalibrationOptions::paper(ErrorProbability::new(0.05).unwrap());
//! ```
//!
//! # A worked example
//!
//! A thousand prompts were answered by the full model and at four lower thresholds; the loss is a distance in
//! `[0, 1]` to the full model's answer (textual consistency, the paper's equation 10). Here every tenth
//! answer differs at the highest of these thresholds, and more below.
//!
//! ```
//! use calm_calibrate::{CalibrationOptions, LossKind, LossTable, Tolerance, calibrate};
//!
//! // The most conservative threshold comes first. Its row is the full model compared with itself.
//! let thresholds = vec![1.0, 0.9, 0.8, 0.7, 0.6];
//! let one_in =
//!     |period: usize, loss: f64| (0..1000).map(|i| if i % period == 0 { loss } else { 0.0 }).collect();
//! let losses = vec![vec![0.0; 1000], one_in(10, 0.3), one_in(5, 0.3), one_in(3, 0.25), one_in(2, 0.3)];
//! let table = LossTable::new(thresholds, losses)?;
//!
//! let delta = Tolerance::new(0.1)?;
//! let calibration = calibrate(&table, &CalibrationOptions::new(delta, LossKind::UnitInterval))?;
//!
//! // Mean losses of 0.03, 0.06 and 0.083 are certified to be at most 0.1; 0.15 is not.
//! assert_eq!(calibration.certified, [0.9, 0.8, 0.7]);
//! assert_eq!(calibration.threshold, 0.7);
//! assert!(!calibration.fallback);
//! assert!(calibration.p_values[2] <= 0.05 && calibration.p_values[3] > 0.05);
//!
//! // The paper's p-value does not see how little these losses vary, and stops one threshold earlier.
//! assert_eq!(calibrate(&table, &CalibrationOptions::paper(delta))?.threshold, 0.8);
//!
//! // With a tolerance of 0.01 nothing is certified, and the model must not exit early.
//! let strict = calibrate(&table, &CalibrationOptions::paper(Tolerance::new(0.01)?))?;
//! assert!(strict.fallback && strict.certified.is_empty() && strict.threshold == 1.0);
//! # Ok::<(), calm_calibrate::Error>(())
//! ```
//!
//! # Where things are
//!
//! [`p_value`] has one file for each p-value, [`procedure`] one for each family-wise procedure; both have an
//! enum whose `match` is the place to add another. [`LossTable`] is the input of [`calibrate`], which puts
//! the three together; a [`Calibrator`] takes losses in pieces and keeps none of them. [`run_trials`] is the
//! paper's protocol, calibration repeated on random divisions of the same prompts. `loss_file`, behind the
//! feature `files` that is on by default, calibrates from a CSV or Parquet file of any size.

mod binomial_distribution;
mod calibrate;
mod check;
mod conformal;
mod e_process;
mod error;
mod evidence;
mod level;
mod loss;
#[cfg(feature = "files")]
pub mod loss_file;
mod loss_sum;
mod normal_distribution;
pub mod p_value;
mod pareto;
pub mod procedure;
mod split;
mod table;
mod trials;
mod upper_bound;

pub use calibrate::{Calibration, CalibrationOptions, Calibrator, calibrate, calibrate_each};
pub use conformal::{ExpectationControl, conformal_risk_control};
pub use e_process::{EProcess, SequentialCalibration, log_mean_e_value};
pub use error::{Error, InvalidLoss};
pub use evidence::{Evidence, SampleDesign};
pub use level::{ErrorProbability, Tolerance};
pub use loss::{LossKind, exceeds, positive_part_risk_loss, signed_risk_loss};
#[cfg(feature = "files")]
pub use loss_file::{LossFile, LossFileError, calibrate_file, read_table};
pub use loss_sum::LossSum;
pub use p_value::{LogP, PValue};
pub use pareto::{Cost, ParetoCalibration, Risk, pareto_front, pareto_testing};
pub use procedure::{Graph, Procedure};
pub use split::Split;
pub use table::LossTable;
pub use trials::{Trial, TrialOptions, TrialSplit, accepted_violations, run_trial, run_trials};
