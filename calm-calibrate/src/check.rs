//! Whether a result that was read from a file can be one.

use crate::calibrate::FULL_MODEL;
use crate::table::check_thresholds;
use crate::{Calibration, Error, Procedure};

/// How far a p-value may be from the exponential of its logarithm, of which it is a share: machines round
/// exponentials differently.
const ROUNDING: f64 = 1e-9;

impl Calibration {
    /// Checks that the values agree with each other, as those of every result do.
    ///
    /// The thresholds descend, each has its loss and p-value in their ranges, and the procedure certifies
    /// from these p-values exactly what is said to be certified. Nothing tells whether the p-values are those
    /// of the losses, which are not part of the result.
    ///
    /// # Errors
    /// [`Error::Contradiction`], and what [`calibrate`](crate::calibrate()) says of thresholds, losses and
    /// procedures.
    pub fn check(&self) -> Result<(), Error> {
        self.check_lists()?;
        let certified = self.certified_again()?;
        let threshold = certified.last().copied().unwrap_or(FULL_MODEL);
        if self.certified != certified {
            let message = format!(
                "{:?} are said to be certified, but the p-values certify {certified:?}",
                self.certified
            );
            return contradiction(message);
        }
        if self.fallback != certified.is_empty() || self.threshold != threshold {
            let message = format!(
                "the threshold is {} (fallback: {}), but the least certified one is {threshold}",
                self.threshold, self.fallback
            );
            return contradiction(message);
        }
        Ok(())
    }

    fn check_lists(&self) -> Result<(), Error> {
        if self.examples == 0 {
            return Err(Error::NoExamples);
        }
        self.p_value.check(self.loss_kind)?;
        if matches!(self.procedure, Procedure::MultiStart { starts: 0 }) {
            return contradiction("multi-start has no starts".to_owned());
        }
        // A grid of the full model alone has none to test.
        if !self.thresholds.is_empty() {
            check_thresholds(&self.thresholds)?;
        }
        if self.thresholds.first() == Some(&FULL_MODEL) {
            return contradiction("the full model is among the tested thresholds".to_owned());
        }
        let expected = self.thresholds.len();
        for (what, found) in [
            ("mean losses", self.empirical_losses.len()),
            ("p-values", self.p_values.len()),
            ("logarithms of p-values", self.log_p_values.len()),
        ] {
            if found != expected {
                return Err(Error::UnequalCounts { what, expected, found });
            }
        }
        let range = self.loss_kind.least()..=1.0;
        if let Some(loss) = self.empirical_losses.iter().find(|loss| !range.contains(loss)) {
            return contradiction(format!("{loss} is no mean of losses of kind {}", self.loss_kind));
        }
        for (p, log_p) in self.p_values.iter().zip(&self.log_p_values) {
            let agrees = (p - log_p.p()).abs() <= ROUNDING * log_p.p();
            if !agrees {
                return contradiction(format!("the p-value {p} has the logarithm {}", log_p.ln()));
            }
        }
        Ok(())
    }

    /// What the procedure certifies from the p-values, descending.
    fn certified_again(&self) -> Result<Vec<f64>, Error> {
        let places: Option<Vec<usize>> = self
            .sequence
            .iter()
            .map(|threshold| self.thresholds.iter().position(|other| other == threshold))
            .collect();
        let mut distinct = places.clone().unwrap_or_default();
        distinct.sort_unstable();
        distinct.dedup();
        let takes_all = !matches!(self.procedure, Procedure::Pareto { .. });
        let expected = if takes_all { self.thresholds.len() } else { self.sequence.len() };
        let Some(places) = places.filter(|_| distinct.len() == expected) else {
            return contradiction("the sequence is no order of the thresholds".to_owned());
        };
        let log_p: Vec<_> = places.iter().map(|&place| self.log_p_values[place]).collect();
        let rejected = self.procedure.reject(&log_p, self.epsilon)?;
        let mut certified: Vec<f64> = rejected.into_iter().map(|place| self.sequence[place]).collect();
        certified.sort_by(|a, b| b.total_cmp(a));
        Ok(certified)
    }
}

fn contradiction<T>(message: String) -> Result<T, Error> {
    Err(Error::Contradiction { message })
}
