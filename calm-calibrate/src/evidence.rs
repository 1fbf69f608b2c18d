use crate::loss_sum::RunningSum;
use crate::p_value::{Bets, Capital, Horizon, LogP, Moments, PIECE, PValue};
use crate::{Error, ErrorProbability, InvalidLoss, LossKind, Tolerance};

/// The questions to a sample, fixed before the first loss is seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleDesign {
    /// The p-value to compute.
    pub p_value: PValue,
    /// The declared kind of the losses.
    pub loss_kind: LossKind,
    /// The size of the sample. Only [`PValue::Betting`] depends on it, since its bets are made for this many
    /// losses.
    pub examples: usize,
    /// The level that the bets of [`PValue::Betting`] are tuned for.
    pub tuned_for: ErrorProbability,
}

/// The p-values of a sample for several tolerances, from losses that arrive in pieces.
///
/// No loss is kept, so that a sample may be larger than the memory.
#[derive(Debug, Clone)]
pub struct Evidence {
    design: SampleDesign,
    tolerances: Vec<Tolerance>,
    sum: RunningSum,
    rest: Rest,
}

/// What a p-value needs besides the sum.
#[derive(Debug, Clone)]
enum Rest {
    Nothing,
    Betting { bets: Bets, capitals: Vec<Capital>, ascent: Ascent },
    Moments(Moments),
}

impl Evidence {
    /// Starts without any loss.
    ///
    /// # Errors
    /// [`Error::KindMismatch`] for a p-value that does not hold for the kind of loss.
    pub fn new(design: &SampleDesign, tolerances: &[Tolerance]) -> Result<Self, Error> {
        design.p_value.check(design.loss_kind)?;
        let rest = match design.p_value {
            PValue::Betting => Rest::Betting {
                bets: Bets::new(design.tuned_for, Horizon::Sample(design.examples)),
                capitals: tolerances.iter().map(|delta| Capital::new(delta.get())).collect(),
                ascent: Ascent::default(),
            },
            PValue::Asymptotic => Rest::Moments(Moments::default()),
            _ => Rest::Nothing,
        };
        let sum = RunningSum::new(design.loss_kind);
        Ok(Self { design: *design, tolerances: tolerances.to_vec(), sum, rest })
    }

    /// Takes a whole sample for one tolerance.
    pub(crate) fn of(losses: &[f64], design: &SampleDesign, tolerance: Tolerance) -> Result<Self, Error> {
        let mut evidence = Self::new(design, &[tolerance])?;
        evidence.push(losses)?;
        Ok(evidence)
    }

    /// Adds the next losses, in the order of the data.
    ///
    /// # Errors
    /// The first loss outside the range of its kind.
    pub fn push(&mut self, losses: &[f64]) -> Result<(), InvalidLoss> {
        self.sum.push(losses)?;
        match &mut self.rest {
            Rest::Nothing => {}
            Rest::Moments(moments) => moments.push(losses),
            Rest::Betting { bets, capitals, ascent } => {
                ascent.push(losses);
                let mut made = [0.0; PIECE];
                for losses in losses.chunks(PIECE) {
                    let made = &mut made[..losses.len()];
                    bets.bet_on(losses, made);
                    capitals.iter_mut().for_each(|capital| capital.pay(made, losses));
                }
            }
        }
        Ok(())
    }

    /// The number of losses so far.
    pub fn examples(&self) -> usize {
        self.sum.examples()
    }

    /// The mean loss so far.
    ///
    /// # Errors
    /// [`Error::NoExamples`]
    pub fn mean(&self) -> Result<f64, Error> {
        Ok(self.sum.total()?.mean())
    }

    /// The p-value for the tolerance with this index.
    ///
    /// # Errors
    /// [`Error::NoExamples`]
    ///
    /// # Panics
    /// Panics if there are not that many tolerances.
    pub fn log_p(&self, tolerance_index: usize) -> Result<LogP, Error> {
        let total = self.sum.total()?;
        let tolerance = self.tolerances[tolerance_index];
        match &self.rest {
            Rest::Nothing => self.design.p_value.of_sum(total, tolerance),
            Rest::Moments(moments) => Ok(LogP::from_ln_bound(moments.ln_bound(tolerance.get()))),
            Rest::Betting { capitals, .. } => {
                Ok(LogP::from_ln_bound(-capitals[tolerance_index].ln_largest()))
            }
        }
    }

    /// Whether somebody sorted the losses: they ascend as exchangeable ones do once in 1e12 samples.
    ///
    /// It is false if the p-value does not depend on their order.
    pub fn looks_sorted(&self) -> bool {
        match &self.rest {
            Rest::Betting { ascent, .. } => ascent.is_suspicious(),
            Rest::Nothing | Rest::Moments(_) => false,
        }
    }
}

/// Whether losses never descend, and how likely that is by chance.
#[derive(Debug, Clone)]
struct Ascent {
    previous: f64,
    descends: bool,
    examples: usize,
    /// Length of the last run of equal losses.
    run: usize,
    /// Value of `ln(r1! r2! ...)` over all runs of equal losses but the last.
    ln_orders_kept: f64,
}

impl Default for Ascent {
    fn default() -> Self {
        Self { previous: f64::NEG_INFINITY, descends: false, examples: 0, run: 0, ln_orders_kept: 0.0 }
    }
}

impl Ascent {
    fn push(&mut self, losses: &[f64]) {
        for &loss in losses {
            if self.descends {
                return;
            }
            if loss == self.previous {
                self.run += 1;
            } else {
                self.ln_orders_kept += ln_factorial(self.run);
                self.run = 1;
            }
            self.descends = loss < self.previous;
            self.examples += 1;
            self.previous = loss;
        }
    }

    fn is_suspicious(&self) -> bool {
        let ln_orders_kept = self.ln_orders_kept + ln_factorial(self.run);
        !self.descends && ln_orders_kept - ln_factorial(self.examples) < 1e-12_f64.ln()
    }
}

fn ln_factorial(number: usize) -> f64 {
    libm::lgamma(number as f64 + 1.0)
}
