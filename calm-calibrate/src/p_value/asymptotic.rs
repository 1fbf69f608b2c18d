use super::{LogP, PValue};
use crate::evidence::{Evidence, SampleDesign};
use crate::normal_distribution::log_cdf;
use crate::{Error, ErrorProbability, LossKind, Tolerance};

/// The p-value of the normal approximation, `Phi(sqrt(n) (mean - delta) / s)`.
///
/// Here s is the sample's standard deviation, with n - 1 in the denominator. **The p-value holds only in the
/// limit:** with 20 examples a nominal level of 0.05 is really 0.12, with 500 up to 0.08.
///
/// It is meant for comparison. If the standard deviation is 0, the approximation is certain of its mean: p is
/// 0 below `delta`, and 1 from there on. A single example has no standard deviation, and p is 1.
///
/// # Errors
/// A loss lies outside the range of `kind`, or there are no losses.
pub fn asymptotic(losses: &[f64], kind: LossKind, tolerance: Tolerance) -> Result<LogP, Error> {
    let design = SampleDesign {
        p_value: PValue::Asymptotic,
        loss_kind: kind,
        examples: losses.len(),
        tuned_for: ErrorProbability::PAPER,
    };
    Evidence::of(losses, &design, tolerance)?.log_p(0)
}

/// Mean and squared deviations of losses that arrive in pieces (Welford 1962).
#[derive(Debug, Clone, Default)]
pub(crate) struct Moments {
    examples: usize,
    mean: f64,
    squares: f64,
}

impl Moments {
    pub(crate) fn push(&mut self, losses: &[f64]) {
        for &loss in losses {
            self.examples += 1;
            let deviation = loss - self.mean;
            self.mean += deviation / self.examples as f64;
            self.squares += deviation * (loss - self.mean);
        }
    }

    pub(crate) fn ln_bound(&self, delta: f64) -> f64 {
        if self.examples < 2 || self.mean >= delta && self.squares == 0.0 {
            return 0.0;
        }
        let examples = self.examples as f64;
        let standard_error = (self.squares / (examples - 1.0) / examples).sqrt();
        log_cdf((self.mean - delta) / standard_error)
    }
}
