use super::{LogP, PValue};
use crate::evidence::{Evidence, SampleDesign};
use crate::{Error, ErrorProbability, LossKind, Tolerance};

/// The betting p-value of losses in the order of the data.
///
/// It is the one-sided predictable plug-in of Waudby-Smith and Ramdas 2024.
///
/// A gambler bets before each loss that it will be below `delta`: her capital is multiplied by
/// `1 - bet (loss - delta)`. If the expected loss is `delta` or more, she cannot expect to win, and the
/// probability that her capital ever reaches `1 / p` is at most p (Ville's inequality). The p-value is 1 over
/// the largest capital that she had. Her bets adapt to the variance of the losses seen so far, which is why
/// fractional losses need a third to three quarters fewer examples than with
/// [`hoeffding_bentkus`](super::hoeffding_bentkus()).
///
/// The losses only need an upper bound, which is 1: a very negative difference just multiplies the capital.
/// So differences are used as they are, without rescaling.
///
/// The order of the losses must have been fixed without looking at them; sorted ascending, anything would be
/// certified. `tuned_for` is the level at which the bets try to win soonest. The p-value holds at every
/// level, but `tuned_for` must be chosen beforehand too.
///
/// # Errors
/// A loss lies outside the range of `kind`, or there are no losses.
pub fn betting(
    losses: &[f64],
    kind: LossKind,
    tolerance: Tolerance,
    tuned_for: ErrorProbability,
) -> Result<LogP, Error> {
    let design =
        SampleDesign { p_value: PValue::Betting, loss_kind: kind, examples: losses.len(), tuned_for };
    Evidence::of(losses, &design, tolerance)?.log_p(0)
}

/// Number of losses that are bet on at a time, which fit into the fastest cache.
pub(crate) const PIECE: usize = 1024;

/// The bets of the predictable plug-in, each a function of the losses before it.
#[derive(Debug, Clone)]
pub(crate) struct Bets {
    /// The value `2 ln(1 / level)`.
    aim: f64,
    horizon: Horizon,
    examples: usize,
    sum: f64,
    squares: f64,
}

/// The number of losses that the bets are made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Horizon {
    /// The sample has this size.
    Sample(usize),
    /// The number is not known: the bets shrink slowly, so that the capital grows whenever one looks (ibid.,
    /// equation 26).
    Open,
}

impl Bets {
    /// The largest bet. With losses up to 1, any bet below `1 / (1 - delta)` leaves the gambler solvent.
    const CAP: f64 = 1.0;

    pub(crate) fn new(tuned_for: ErrorProbability, horizon: Horizon) -> Self {
        // These are the sums as of half a loss with variance 1/4 before any is seen.
        Self { aim: -2.0 * tuned_for.get().ln(), horizon, examples: 0, sum: 0.5, squares: 0.25 }
    }

    /// Writes the bets on the next losses, each made before its loss.
    ///
    /// A bet must not see its loss, nor the mean and variance that include it: such bets win at twice the
    /// error probability.
    pub(crate) fn bet_on(&mut self, losses: &[f64], bets: &mut [f64]) {
        for (losses, bets) in losses.chunks(PIECE).zip(bets.chunks_mut(PIECE)) {
            self.bet_on_piece(losses, bets);
        }
    }

    /// Computes the bets in several passes.
    ///
    /// Sums, which depend on those before them, are separate from divisions and roots, which then take
    /// several losses at once. `bets` holds all that lies between.
    #[inline]
    fn bet_on_piece(&mut self, losses: &[f64], bets: &mut [f64]) {
        let rounds_before = self.examples as f64;
        let round = |index: usize| rounds_before + f64::from(index as i32 + 1);
        for (&loss, sum) in losses.iter().zip(&mut *bets) {
            self.sum += loss;
            *sum = self.sum;
        }
        for (index, (&loss, sum)) in losses.iter().zip(&mut *bets).enumerate() {
            let deviation = loss - *sum / (round(index) + 1.0);
            *sum = deviation * deviation;
        }
        for square in &mut *bets {
            let squares_before = self.squares;
            self.squares += *square;
            *square = squares_before;
        }
        self.examples += losses.len();
        match self.horizon {
            Horizon::Sample(examples) => {
                for (index, bet) in bets.iter_mut().enumerate() {
                    let variance_times_round = *bet;
                    let aim = self.aim * round(index);
                    *bet = (aim / (examples as f64 * variance_times_round)).sqrt().min(Self::CAP);
                }
            }
            Horizon::Open => {
                for (index, bet) in bets.iter_mut().enumerate() {
                    let variance_times_round = *bet;
                    *bet = (self.aim / (variance_times_round * round(index).ln_1p())).sqrt().min(Self::CAP);
                }
            }
        }
    }
}

/// The capital of one gambler, who started with 1, and the largest it ever was, both as logarithms.
#[derive(Debug, Clone)]
pub(crate) struct Capital {
    /// Value that she bets the mean is below.
    delta: f64,
    /// The most that she stakes.
    ///
    /// With more, a loss of 1 would cost her more than she has, and the capital of 0 that such a gamble
    /// leaves would not weigh up its gains. It binds only for a negative `delta`.
    largest_bet: f64,
    ln_before: f64,
    ln_largest: f64,
    /// The factor on the capital since `ln_before`.
    product: f64,
    largest_product: f64,
}

impl Capital {
    pub(crate) fn new(delta: f64) -> Self {
        Self {
            delta,
            largest_bet: 1.0 / (1.0 - delta),
            ln_before: 0.0,
            ln_largest: 0.0,
            product: 1.0,
            largest_product: 1.0,
        }
    }

    /// Applies the results of `bets` on `losses`.
    ///
    /// It multiplies, and takes a logarithm when the product leaves the middle of a double's range: a
    /// logarithm for each loss would take four times as long and lose more digits.
    #[inline]
    pub(crate) fn pay(&mut self, bets: &[f64], losses: &[f64]) {
        let Self { delta, largest_bet, .. } = *self;
        let (mut product, mut largest) = (self.product, self.largest_product);
        for (&bet, &loss) in bets.iter().zip(losses) {
            product *= (1.0 - bet.min(largest_bet) * (loss - delta)).max(0.0);
            largest = if product > largest { product } else { largest };
            if !(1e-200..=1e200).contains(&product) {
                (self.product, self.largest_product) = (product, largest);
                self.settle();
                (product, largest) = (1.0, 1.0);
            }
        }
        (self.product, self.largest_product) = (product, largest);
    }

    fn settle(&mut self) {
        self.ln_largest = self.ln_largest();
        self.ln_before = self.ln();
        (self.product, self.largest_product) = (1.0, 1.0);
    }

    /// The logarithm of the capital, an e-value at any time that was not chosen by looking into the future.
    pub(crate) fn ln(&self) -> f64 {
        self.ln_before + self.product.ln()
    }

    /// The logarithm of the largest capital so far, at least 0.
    pub(crate) fn ln_largest(&self) -> f64 {
        self.ln_largest.max(self.ln_before + self.largest_product.ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Under an expected loss equal to the tolerance every bet is fair: the expected capital is exactly 1.
    ///
    /// The expectation is over all 4096 samples of 12 binary losses, with bets below their largest, where a
    /// bet that saw its own loss would be noticed.
    #[test]
    fn the_expected_capital_is_1() {
        for delta in [0.1, 0.3, 0.5, 0.9] {
            for tuned_for in [0.8, 0.3, 0.05] {
                let mut expected = 0.0;
                for sample in 0..1_u32 << 12 {
                    let mut bets = Bets::new(ErrorProbability::new(tuned_for).unwrap(), Horizon::Sample(12));
                    let mut capital = Capital::new(delta);
                    for i in 0..12 {
                        let loss = f64::from(sample >> i & 1);
                        let mut bet = [0.0];
                        bets.bet_on(&[loss], &mut bet);
                        capital.pay(&bet, &[loss]);
                    }
                    let ones = sample.count_ones() as i32;
                    expected += delta.powi(ones) * (1.0 - delta).powi(12 - ones) * capital.ln().exp();
                }
                assert!((expected - 1.0).abs() < 1e-12, "delta {delta}, tuned for {tuned_for}: {expected}");
            }
        }
    }
}
