//! Confidence intervals, and tests whether two systems differ by more than chance.
//!
//! Resampling is that of sacreBLEU's `significance.py`, down to the random numbers, so that the same seed
//! gives the same result.
//!
//! sacreBLEU rounds the statistics of a bootstrap to single precision. Here they are doubles, so that the
//! scores of resamples differ from sacreBLEU's by about 1e-6.

mod numpy;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::corpus::sum;
use crate::{Error, Statistics};
use numpy::Generator;

/// sacreBLEU's default number of resamples of a bootstrap.
pub const BOOTSTRAP_SAMPLES: usize = 1000;
/// sacreBLEU's default number of trials of approximate randomisation.
pub const RANDOMISATION_TRIALS: usize = 10_000;
/// sacreBLEU's default seed.
pub const SEED: u64 = 12345;

/// Largest gap between differences that is due to rounding. A tie is not counted as larger.
const TIE: f64 = 1e-9;

/// The most resamples, or trials, of one estimate. Their scores are kept in memory.
pub const MOST_SAMPLES: usize = 10_000_000;

/// Number of resamples drawn before they are scored, which bounds the memory that they take.
const BLOCK: usize = 256;

/// The interval in which the score of a corpus lies with 95 % confidence, in percent as the score is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Mean score of the resamples.
    pub mean: f64,
    /// Half of the distance from `low` to `high`, which sacreBLEU prints after ±.
    pub half_width: f64,
    /// Lower end: all but a fortieth of the resamples score at least this.
    pub low: f64,
    /// Upper end: all but a fortieth of the resamples score at most this.
    pub high: f64,
}

/// How a system compares with a baseline on the same segments.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Score of the baseline, in percent.
    pub baseline: f64,
    /// Score of the system, in percent.
    pub system: f64,
    /// Probability of a difference at least as large in either direction, if the systems did not differ.
    ///
    /// It is above 0 and at most 1.
    pub p_value: f64,
}

/// The test that compares two systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairedTest {
    /// Paired bootstrap resampling (Koehn 2004): both systems are scored on the same segments, drawn with
    /// replacement.
    Bootstrap,
    /// Paired approximate randomisation (Riezler and Maxwell 2005): the systems' outputs are swapped at
    /// random.
    Randomisation,
}

/// Estimates the interval of the score of a corpus by bootstrap resampling.
///
/// # Errors
/// Fails if `samples` is 0 or above [`MOST_SAMPLES`].
pub fn bootstrap(statistics: &Statistics, samples: usize, seed: u64) -> Result<Interval, Error> {
    let mut scores = bootstrap_scores(statistics, samples, seed)?;
    scores.sort_by(f64::total_cmp);
    let outside = samples / 40;
    let (low, high) = (scores[outside], scores[samples - outside - 1]);
    Ok(Interval { mean: mean(&scores), half_width: 0.5 * (high - low), low, high })
}

impl PairedTest {
    /// Tests a system against a baseline.
    ///
    /// # Errors
    /// Fails if `samples` is 0 or above [`MOST_SAMPLES`], or if the two have different numbers of segments or
    /// were scored differently.
    pub fn compare(
        self,
        baseline: &Statistics,
        system: &Statistics,
        samples: usize,
        seed: u64,
    ) -> Result<Comparison, Error> {
        if baseline.segments() != system.segments() {
            return Err(Error::SystemMismatch { baseline: baseline.segments(), system: system.segments() });
        }
        if baseline.scorer != system.scorer {
            return Err(Error::ScorerMismatch);
        }
        let differences = match self {
            Self::Bootstrap => bootstrap_differences(baseline, system, samples, seed)?,
            Self::Randomisation => swapped_differences(baseline, system, samples, seed)?,
        };
        let (baseline, system) = (baseline.score(), system.score());
        let difference = (baseline - system).abs();
        let larger = differences.iter().filter(|&&by_chance| by_chance > difference + TIE).count();
        Ok(Comparison { baseline, system, p_value: (larger + 1) as f64 / (samples + 1) as f64 })
    }
}

/// Computes how far the difference on each resample lies from the mean of these differences.
fn bootstrap_differences(
    baseline: &Statistics,
    system: &Statistics,
    samples: usize,
    seed: u64,
) -> Result<Vec<f64>, Error> {
    let baseline = bootstrap_scores(baseline, samples, seed)?;
    let system = bootstrap_scores(system, samples, seed)?;
    let differences: Vec<f64> = system.iter().zip(baseline).map(|(a, b)| (a - b).abs()).collect();
    let mean = mean(&differences);
    Ok(differences.into_iter().map(|difference| difference - mean).collect())
}

fn bootstrap_scores(statistics: &Statistics, samples: usize, seed: u64) -> Result<Vec<f64>, Error> {
    let segments = statistics.segments();
    let mut generator = Generator::new(seed);
    let draw = || (0..segments).map(|_| generator.below(segments as u32)).collect();
    resample(samples, draw, |drawn: &Vec<u32>| {
        statistics.score_of(drawn.iter().map(|&segment| segment as usize))
    })
}

/// Computes the difference of the systems after each segment's outputs were swapped or not.
fn swapped_differences(
    baseline: &Statistics,
    system: &Statistics,
    samples: usize,
    seed: u64,
) -> Result<Vec<f64>, Error> {
    let mut flags = Generator::new(seed).flags();
    let draw = || flags.by_ref().take(baseline.segments()).collect();
    resample(samples, draw, |from_baseline: &Vec<bool>| {
        let pairs = || from_baseline.iter().zip(baseline.rows.iter().zip(&system.rows));
        let a = pairs().map(|(&first, (b, s))| if first { b.as_slice() } else { s });
        let b = pairs().map(|(&first, (b, s))| if first { s.as_slice() } else { b });
        (system.scorer.score_of(&sum(a)) - system.scorer.score_of(&sum(b))).abs()
    })
}

/// Draws one resample after the other, and scores them in parallel.
fn resample<D: Send + Sync>(
    samples: usize,
    mut draw: impl FnMut() -> D,
    score: impl Fn(&D) -> f64 + Sync,
) -> Result<Vec<f64>, Error> {
    if samples == 0 {
        return Err(Error::NoSamples);
    }
    if samples > MOST_SAMPLES {
        return Err(Error::TooManySamples { samples });
    }
    let mut scores = Vec::with_capacity(samples);
    while scores.len() < samples {
        let drawn: Vec<D> = (scores.len()..samples.min(scores.len() + BLOCK)).map(|_| draw()).collect();
        scores.par_extend(drawn.par_iter().map(&score));
    }
    Ok(scores)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
