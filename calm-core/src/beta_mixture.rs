//! A mixture of two Beta distributions: the confidences of tokens that agree with the last layer, and of
//! those that do not.
//!
//! The estimator is that of FREE (Bae et al., Fast and Robust Early-Exiting Framework for Autoregressive
//! Language Models with Synchronized Parallel Decoding, EMNLP 2023), in two forms: what its released code
//! does (`util/bmm.py` of raymin0223/fast_robust_early_exit), and what it was meant to do. In the code the
//! line that mixes in the posterior is overwritten by the next one, the weights of the components are never
//! learnt, and a single iteration is made.

use serde::{Deserialize, Serialize};

use crate::monotone::Observation;

/// Confidences are kept so far from 0 and 1, where densities may be infinite.
const CLIP: f64 = 1e-4;
/// The share of the label in a responsibility; the rest is the posterior's (`lam_r` of the code is 0.8).
const LABEL_SHARE: f64 = 0.2;
/// Responsibilities of the released code are at least this before they are divided by their sum.
const FLOOR: f64 = 1e-4;
/// Thresholds that the released code chooses from: so many, from the first to the last.
const GRID: (usize, f64, f64) = (10, 0.3, 0.9);
/// Densities below exp of this are 0 in f64.
const LN_SMALLEST: f64 = -745.0;
/// A component of the intended form has at least this variance, so that equal confidences cause no infinite
/// density.
const LEAST_VARIANCE: f64 = 1e-6;
/// The intended form has converged when no parameter moves by more than this part of itself.
const TOLERANCE: f64 = 1e-10;
/// Iterations of the intended form at most.
const MOST_ITERATIONS: usize = 2000;
/// Thresholds of the intended form are so exact.
const PRECISION: f64 = 1e-9;

/// The posterior that the released code asks for (its `zeta`).
pub const PUBLISHED_ZETA: f64 = 0.4;

/// A Beta distribution and its share of a mixture.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BetaComponent {
    /// Share of the mixture, from 0 to 1.
    pub weight: f64,
    /// The first parameter, above 0; large where confidences are near 1.
    pub alpha: f64,
    /// The second parameter, above 0; large where confidences are near 0.
    pub beta: f64,
}

/// Two components, whose weights add up to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Components")]
pub struct BetaMixture {
    /// The component of tokens that are the last layer's.
    pub agreeing: BetaComponent,
    /// The component of other tokens.
    pub disagreeing: BetaComponent,
}

/// A mixture as it is in a file.
#[derive(Deserialize)]
struct Components {
    agreeing: BetaComponent,
    disagreeing: BetaComponent,
}

impl BetaComponent {
    /// Logarithm of the density at `x`, which is moved into `[1e-4, 1 - 1e-4]`; the weight is not in it.
    pub fn ln_density(&self, x: f64) -> f64 {
        let x = x.clamp(CLIP, 1.0 - CLIP);
        self.of_logs(x.ln(), (-x).ln_1p(), self.ln_normaliser())
    }

    fn of_logs(&self, ln_x: f64, ln_rest: f64, ln_normaliser: f64) -> f64 {
        (self.alpha - 1.0) * ln_x + (self.beta - 1.0) * ln_rest - ln_normaliser
    }

    /// Logarithm of the Beta function.
    fn ln_normaliser(&self) -> f64 {
        libm::lgamma(self.alpha) + libm::lgamma(self.beta) - libm::lgamma(self.alpha + self.beta)
    }

    fn mean(&self) -> f64 {
        self.alpha / (self.alpha + self.beta)
    }

    /// The distribution with the mean and the variance of the sample where a value counts as often as
    /// `responsibilities` say; `None` if the variance is not above 0.
    fn of_moments(sample: &Sample, responsibilities: &[f64], least_variance: f64) -> Option<Self> {
        let total: f64 = responsibilities.iter().sum();
        let pairs = || sample.x.iter().zip(responsibilities);
        let mean = pairs().map(|(x, r)| r * x).sum::<f64>() / total;
        let variance = pairs().map(|(x, r)| r * (x - mean) * (x - mean)).sum::<f64>() / total;
        let variance = variance.max(least_variance);
        let alpha = mean * (mean * (1.0 - mean) / variance - 1.0);
        let component =
            Self { weight: total / sample.x.len() as f64, alpha, beta: alpha * (1.0 - mean) / mean };
        component.is_proper().then_some(component)
    }

    fn is_proper(&self) -> bool {
        let in_range = |parameter: f64| parameter.is_finite() && parameter > 0.0;
        (0.0..=1.0).contains(&self.weight) && in_range(self.alpha) && in_range(self.beta)
    }
}

impl BetaMixture {
    /// Fits a mixture as the released code does: each component has the mean and the variance of its label's
    /// confidences, with 0.05 % of the other label's mixed in, and half of the weight, however many tokens
    /// agree.
    ///
    /// `y` of an observation is 1 for a token that agrees and 0 for another. `None` where the code computes
    /// numbers that are none: without observations, or where all confidences are the same. With one label
    /// alone both components are the same.
    pub fn published(observations: impl IntoIterator<Item = Observation>) -> Option<Self> {
        let sample = Sample::new(observations);
        let component = |of: fn(f64) -> f64| {
            let responsibility = |&label: &f64| {
                let floored = |share: f64| (LABEL_SHARE * share).max(FLOOR);
                floored(of(label)) / (floored(label) + floored(1.0 - label) + 1e-12)
            };
            let responsibilities: Vec<f64> = sample.labels.iter().map(responsibility).collect();
            let fitted = BetaComponent::of_moments(&sample, &responsibilities, 0.0)?;
            Some(BetaComponent { weight: 0.5, ..fitted })
        };
        if sample.is_constant() {
            return None;
        }
        Some(Self { agreeing: component(|label| label)?, disagreeing: component(|label| 1.0 - label)? })
    }

    /// Fits a mixture as it is meant to be, by expectation-maximisation: responsibilities are 0.8 of the
    /// posterior and 0.2 of the label, components have the mean and the variance of what they are responsible
    /// for, and weights are learnt. It starts from the labels alone and ends when no parameter moves by more
    /// than 1e-10 of itself, or after 2000 iterations.
    ///
    /// `y` of an observation is 1 for a token that agrees and 0 for another. With one label alone that
    /// component has all of the weight. A component whose confidences are all the same is given a variance of
    /// 1e-6. `None` without observations.
    pub fn intended(observations: impl IntoIterator<Item = Observation>) -> Option<Self> {
        let sample = Sample::new(observations);
        let mut responsibilities = sample.labels.clone();
        let mut mixture = Self::of_responsibilities(&sample, &responsibilities)?;
        for _ in 0..MOST_ITERATIONS {
            if mixture.has_one_component() {
                break;
            }
            let ln_normalisers = mixture.ln_normalisers();
            for (index, responsibility) in responsibilities.iter_mut().enumerate() {
                let log_odds = mixture.log_odds(sample.ln_x[index], sample.ln_rest[index], ln_normalisers);
                *responsibility =
                    (1.0 - LABEL_SHARE) * sigmoid(log_odds) + LABEL_SHARE * sample.labels[index];
            }
            let next = Self::of_responsibilities(&sample, &responsibilities)?;
            let is_done = next.is_within(TOLERANCE, &mixture);
            mixture = next;
            if is_done {
                break;
            }
        }
        Some(mixture)
    }

    /// The posterior probability, from 0 to 1, that a token of confidence `x` agrees. Confidences beyond
    /// `[1e-4, 1 - 1e-4]` count as its ends; what is no number stays none.
    pub fn posterior(&self, x: f64) -> f64 {
        let x = x.clamp(CLIP, 1.0 - CLIP);
        sigmoid(self.log_odds(x.ln(), (-x).ln_1p(), self.ln_normalisers()))
    }

    /// Mean logarithm of the mixture's density over the confidences of some observations, whatever their
    /// labels; `None` without observations.
    pub fn mean_log_likelihood(&self, observations: impl IntoIterator<Item = Observation>) -> Option<f64> {
        let sample = Sample::new(observations);
        let ln_density = |&x: &f64| {
            let ln_parts =
                [self.agreeing, self.disagreeing].map(|part| part.weight.ln() + part.ln_density(x));
            let largest = ln_parts[0].max(ln_parts[1]);
            largest + ln_parts.map(|ln_part| (ln_part - largest).exp()).iter().sum::<f64>().ln()
        };
        let sum: f64 = sample.x.iter().map(ln_density).sum();
        (!sample.x.is_empty()).then(|| sum / sample.x.len() as f64)
    }

    /// The least confidence at which the posterior exceeds `zeta`, to 1e-9: 0 if it does at 1e-4 already, and
    /// 1 if it does nowhere. A posterior may fall again above it, where the densities cross twice.
    pub fn threshold(&self, zeta: f64) -> f64 {
        let exceeds = |x: f64| self.posterior(x) > zeta;
        // The slope of the log odds, slope_x / x - slope_rest / (1 - x), changes its sign once at most.
        let slope_x = self.agreeing.alpha - self.disagreeing.alpha;
        let slope_rest = self.agreeing.beta - self.disagreeing.beta;
        let turn = (slope_x / (slope_x + slope_rest)).clamp(CLIP, 1.0 - CLIP);
        let turn = if turn.is_nan() { 1.0 - CLIP } else { turn };
        if exceeds(CLIP) {
            return 0.0;
        }
        let Some(mut high) = [turn, 1.0 - CLIP].into_iter().find(|&x| exceeds(x)) else { return 1.0 };
        let mut low = if high > turn { turn } else { CLIP };
        while high - low > PRECISION {
            let middle = 0.5 * (low + high);
            if exceeds(middle) { high = middle } else { low = middle }
        }
        high
    }

    /// Weights and components that have the moments of what they are responsible for, given the
    /// responsibilities of the agreeing one.
    fn of_responsibilities(sample: &Sample, agreeing: &[f64]) -> Option<Self> {
        let disagreeing: Vec<f64> = agreeing.iter().map(|r| 1.0 - r).collect();
        let part =
            |responsibilities: &[f64]| BetaComponent::of_moments(sample, responsibilities, LEAST_VARIANCE);
        match (part(agreeing), part(&disagreeing)) {
            (Some(agreeing), Some(disagreeing)) => Some(Self { agreeing, disagreeing }),
            // What is responsible for nothing has no moments.
            (Some(agreeing), None) => {
                Some(Self { agreeing, disagreeing: BetaComponent { weight: 0.0, ..agreeing } })
            }
            (None, Some(disagreeing)) => {
                Some(Self { agreeing: BetaComponent { weight: 0.0, ..disagreeing }, disagreeing })
            }
            (None, None) => None,
        }
    }

    fn has_one_component(&self) -> bool {
        self.agreeing.weight == 0.0 || self.disagreeing.weight == 0.0
    }

    fn ln_normalisers(&self) -> [f64; 2] {
        [self.agreeing.ln_normaliser(), self.disagreeing.ln_normaliser()]
    }

    /// Logarithm of the odds that a token agrees.
    fn log_odds(&self, ln_x: f64, ln_rest: f64, [agreeing, disagreeing]: [f64; 2]) -> f64 {
        self.agreeing.weight.ln() - self.disagreeing.weight.ln()
            + self.agreeing.of_logs(ln_x, ln_rest, agreeing)
            - self.disagreeing.of_logs(ln_x, ln_rest, disagreeing)
    }

    fn is_within(&self, tolerance: f64, other: &Self) -> bool {
        let parameters = |mixture: &Self| {
            let Self { agreeing: a, disagreeing: d } = mixture;
            [a.weight, a.alpha, a.beta, d.weight, d.alpha, d.beta]
        };
        parameters(self).iter().zip(parameters(other)).all(|(a, b)| (a - b).abs() <= tolerance * b.abs())
    }
}

/// The exit threshold that the released code chooses for a mixture of
/// [`published`](BetaMixture::published): one of ten from 0.3 to 0.9, so that as many of them lie at or above
/// it as have a posterior above `zeta`, under equal weights. Where there is no mixture, or where the
/// densities of both components are 0, its comparisons fail, and without any that succeeds the threshold is
/// 0.9; with all of them it is 0.3.
pub fn published_threshold(mixture: Option<&BetaMixture>, zeta: f64) -> f64 {
    let (count, first, last) = GRID;
    let grid = |index: usize| (first + (last - first) * index as f64 / (count - 1) as f64).min(last);
    let passes = |mixture: &BetaMixture, x: f64| {
        let BetaMixture { agreeing, disagreeing } = *mixture;
        // The component that is believed to be the agreeing one is that with the larger mean.
        let is_above = agreeing.mean() > disagreeing.mean();
        let (upper, lower) = if is_above { (agreeing, disagreeing) } else { (disagreeing, agreeing) };
        let (upper, lower) = (upper.ln_density(x), lower.ln_density(x));
        upper.max(lower) > LN_SMALLEST && sigmoid(upper - lower) > zeta
    };
    let passing =
        mixture.map_or(0, |mixture| (0..count).filter(|&index| passes(mixture, grid(index))).count());
    grid((count - passing).min(count - 1))
}

impl TryFrom<Components> for BetaMixture {
    type Error = &'static str;

    fn try_from(Components { agreeing, disagreeing }: Components) -> Result<Self, Self::Error> {
        if !agreeing.is_proper() || !disagreeing.is_proper() {
            Err("weights must be from 0 to 1, alpha and beta numbers above 0")
        } else if (agreeing.weight + disagreeing.weight - 1.0).abs() > 1e-6 {
            Err("weights must add up to 1")
        } else {
            Ok(Self { agreeing, disagreeing })
        }
    }
}

/// Observations that have numbers, with what every iteration needs of them.
struct Sample {
    x: Vec<f64>,
    ln_x: Vec<f64>,
    ln_rest: Vec<f64>,
    /// 1 for a token that agrees.
    labels: Vec<f64>,
}

impl Sample {
    fn new(observations: impl IntoIterator<Item = Observation>) -> Self {
        let mut sorted: Vec<(f64, f64)> = observations
            .into_iter()
            .filter(|Observation { x, y }| x.is_finite() && y.is_finite())
            .map(|Observation { x, y }| (f64::from(x).clamp(CLIP, 1.0 - CLIP), f64::from(y)))
            .collect();
        // The order of the observations must not change what rounds.
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let (x, labels): (Vec<f64>, Vec<f64>) = sorted.into_iter().unzip();
        let ln_x = x.iter().map(|x| x.ln()).collect();
        let ln_rest = x.iter().map(|x| (-x).ln_1p()).collect();
        Self { x, ln_x, ln_rest, labels }
    }

    /// Whether there is no variance, but for rounding.
    fn is_constant(&self) -> bool {
        self.x.first() == self.x.last()
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
