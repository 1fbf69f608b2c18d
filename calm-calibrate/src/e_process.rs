use crate::calibrate::FULL_MODEL;
use crate::p_value::{Bets, Capital, Horizon};
use crate::table::check_thresholds;
use crate::{Error, ErrorProbability, LogP, LossKind, Tolerance};

/// Evidence that may be looked at while the data arrive.
///
/// It is the capital of a gambler who bets that the expected loss is below the tolerance, as in
/// [`betting`](crate::p_value::betting()), but without knowing how many losses will come.
///
/// If the expected loss is the tolerance or more, the expected capital is at most 1 whenever one stops, for
/// whatever reason that lies in the past: the capital is an e-value. The probability that it *ever* reaches
/// `1 / epsilon` is at most `epsilon`, so one may look after every loss and stop as soon as
/// [`log_p`](Self::log_p) is small enough. A p-value of a sample of fixed size allows neither.
#[derive(Debug, Clone)]
pub struct EProcess {
    loss_kind: LossKind,
    examples: usize,
    bets: Bets,
    capital: Capital,
}

impl EProcess {
    /// Starts without any loss, with bets that try to reach the level `tuned_for` soonest.
    ///
    /// The level must be fixed beforehand; the evidence holds at every level.
    pub fn new(tolerance: Tolerance, loss_kind: LossKind, tuned_for: ErrorProbability) -> Self {
        let bets = Bets::new(tuned_for, Horizon::Open);
        Self { loss_kind, examples: 0, bets, capital: Capital::new(tolerance.get()) }
    }

    /// Adds the next loss.
    ///
    /// # Errors
    /// The loss is outside the range of its kind, and then it does not count.
    pub fn push(&mut self, loss: f64) -> Result<(), Error> {
        self.loss_kind.check(&[loss], self.examples)?;
        let mut bet = [0.0];
        self.bets.bet_on(&[loss], &mut bet);
        self.capital.pay(&bet, &[loss]);
        self.examples += 1;
        Ok(())
    }

    /// The number of losses so far.
    pub fn examples(&self) -> usize {
        self.examples
    }

    /// The logarithm of the e-value, which is the current capital.
    ///
    /// A large one is evidence that the loss is tolerable. Averages of e-values are e-values
    /// ([`log_mean_e_value`]); the largest of the past is not one.
    pub fn log_e_value(&self) -> f64 {
        self.capital.ln()
    }

    /// The p-value that holds at every moment at once, which is 1 over the largest capital so far.
    pub fn log_p(&self) -> LogP {
        LogP::from_ln_bound(-self.capital.ln_largest())
    }
}

/// The logarithm of the mean of e-values, given as logarithms.
///
/// The mean is an e-value whatever their dependence. The result is minus infinity if there are none.
pub fn log_mean_e_value(log_e_values: &[f64]) -> f64 {
    let largest = log_e_values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        return largest;
    }
    let sum: f64 = log_e_values.iter().map(|log_e| (log_e - largest).exp()).sum();
    largest + (sum / log_e_values.len() as f64).ln()
}

/// A calibration that may be looked at after every example, and may go on until its threshold is low enough.
///
/// It is a fixed sequence of [`EProcess`]es: a threshold is certified once the largest capital of it and of
/// all thresholds above it has reached `1 / epsilon`. What was certified once stays certified. The
/// probability that a threshold is ever certified whose expected loss exceeds `delta` is at most `epsilon`,
/// however long the calibration goes on.
#[derive(Debug, Clone)]
pub struct SequentialCalibration {
    epsilon: ErrorProbability,
    thresholds: Vec<f64>,
    processes: Vec<EProcess>,
    examples: usize,
}

impl SequentialCalibration {
    /// Starts a calibration of `thresholds`.
    ///
    /// The full model, threshold 1, needs no test.
    ///
    /// # Errors
    /// The thresholds do not lie in `[0, 1)` or do not strictly descend.
    pub fn new(
        thresholds: &[f64],
        delta: Tolerance,
        epsilon: ErrorProbability,
        loss_kind: LossKind,
    ) -> Result<Self, Error> {
        check_thresholds(thresholds)?;
        if thresholds[0] == FULL_MODEL {
            return Err(Error::InvalidThreshold { threshold_index: 0, threshold: FULL_MODEL });
        }
        let processes = vec![EProcess::new(delta, loss_kind, epsilon); thresholds.len()];
        Ok(Self { epsilon, thresholds: thresholds.to_vec(), processes, examples: 0 })
    }

    /// Adds the losses of the next example at every threshold.
    ///
    /// # Errors
    /// There are fewer or more losses than thresholds, or one is outside the range of its kind; then the
    /// example does not count.
    pub fn push(&mut self, losses: &[f64]) -> Result<(), Error> {
        if losses.len() != self.thresholds.len() {
            let (expected, found) = (self.thresholds.len(), losses.len());
            return Err(Error::UnequalCounts { what: "losses", expected, found });
        }
        for (threshold_index, (&loss, process)) in losses.iter().zip(&self.processes).enumerate() {
            process.loss_kind.check(&[loss], self.examples).map_err(|invalid| {
                let threshold = self.thresholds[threshold_index];
                Error::InvalidLossInTable { threshold_index, threshold, invalid }
            })?;
        }
        self.examples += 1;
        self.processes.iter_mut().zip(losses).try_for_each(|(process, &loss)| process.push(loss))
    }

    /// The number of examples so far.
    pub fn examples(&self) -> usize {
        self.examples
    }

    /// The certified thresholds, descending.
    pub fn certified(&self) -> &[f64] {
        let passed = self.processes.iter().take_while(|process| process.log_p().rejected_at(self.epsilon));
        &self.thresholds[..passed.count()]
    }

    /// The least certified threshold, or 1, the full model, as long as there are none.
    pub fn threshold(&self) -> f64 {
        self.certified().last().copied().unwrap_or(FULL_MODEL)
    }
}
