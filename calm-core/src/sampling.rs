//! Drawing tokens by their probabilities.
//!
//! A draw is the maximum of the logits with Gumbel noise (Gumbel 1954; Maddison et al., A* Sampling, NeurIPS
//! 2014), and the noise is a function of the row's seed, the position and the token alone. So what is drawn
//! from some logits does not depend on the batch, on threads, or on how often a position is decoded. A draft
//! that is drawn with the noise of its position agrees with the last layer's draw as often as their logits
//! let it, and taking the last layer's where they differ leaves exactly what the full model would have drawn:
//! speculative sampling needs no further randomness, and no distribution of the draft.

use std::sync::Arc;

use crate::backbone::{Entry, Token};
use crate::error::PolicyError;
use crate::matrix::best_tokens;

/// How tokens are drawn, and the seed of each row.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    filter: Filter,
    seeds: Arc<[u64]>,
}

/// Which tokens may be drawn, and how their probabilities are sharpened, in this order: temperature, top-k,
/// top-p (as in transformers' `generate`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Filter {
    /// Logits are divided by it; above 0.
    pub temperature: f64,
    /// Only so many of the best tokens, at least one; `None` for all.
    pub top_k: Option<usize>,
    /// Only the least number of best tokens whose probabilities sum up to this, above 0 and up to 1; `None`
    /// for all.
    pub top_p: Option<f64>,
}

impl Filter {
    /// Fails where a number is out of its range.
    ///
    /// # Errors
    /// [`PolicyError::Form`] says which.
    pub fn check(&self) -> Result<(), PolicyError> {
        let failed = |message: String| Err(PolicyError::Form(message));
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return failed(format!("the temperature must be above 0, not {}", self.temperature));
        }
        if self.top_k == Some(0) {
            return failed("top-k must be at least 1".to_owned());
        }
        match self.top_p {
            Some(mass) if !(mass > 0.0 && mass <= 1.0) => {
                failed(format!("top-p must be above 0 and at most 1, not {mass}"))
            }
            _ => Ok(()),
        }
    }

    /// The tokens that may be drawn, with their logits divided by the temperature; ascending unless there is
    /// a top-p.
    fn kept(&self, logits: &[f32]) -> Vec<(Token, f64)> {
        let scaled = |token: Token| (token, f64::from(logits[token as usize]) / self.temperature);
        let all = || (0..logits.len() as Token).map(scaled);
        let mut kept: Vec<(Token, f64)> = match self.top_k {
            Some(count) => best_tokens(logits, count).into_iter().map(scaled).collect(),
            None => all().collect(),
        };
        // Tokens that cannot be drawn, and logits that are no numbers, are behind all others.
        kept.retain(|(_, logit)| *logit > f64::NEG_INFINITY);
        let Some(mass) = self.top_p else { return kept };
        kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let best = kept.first().map_or(0.0, |(_, logit)| *logit);
        let weight = |(_, logit): &(Token, f64)| (logit - best).exp();
        let enough = mass * kept.iter().map(weight).sum::<f64>();
        let mut sum = 0.0;
        let count = kept.iter().take_while(|token| {
            let is_needed = sum < enough;
            sum += weight(token);
            is_needed
        });
        let count = count.count().max(1);
        kept.truncate(count);
        kept
    }
}

impl Sampling {
    /// Draws with these seeds, one for each row of a batch.
    ///
    /// # Errors
    /// A number of the filter is out of its range.
    pub fn new(filter: Filter, seeds: impl Into<Arc<[u64]>>) -> Result<Self, PolicyError> {
        filter.check()?;
        Ok(Self { filter, seeds: seeds.into() })
    }

    /// The number of rows that there are seeds for.
    pub(crate) fn rows(&self) -> usize {
        self.seeds.len()
    }

    /// Draws the token of an entry from its logits `[vocab_size]`. Of logits without any number token 0 is
    /// drawn.
    pub fn draw(&self, entry: Entry, logits: &[f32]) -> Token {
        let kept = self.filter.kept(logits);
        let place = mix(self.seeds[entry.row], entry.position as u64);
        let largest = kept.iter().map(|(_, logit)| *logit).fold(f64::NEG_INFINITY, f64::max);
        let (mut drawn, mut best) = (0, f64::NEG_INFINITY);
        for (token, logit) in kept {
            // No noise takes a token from so far behind.
            if logit + LARGEST_NOISE < best || logit + LARGEST_NOISE < largest - LARGEST_NOISE {
                continue;
            }
            let value = logit + gumbel(mix(place, u64::from(token)));
            if value > best {
                (drawn, best) = (token, value);
            }
        }
        drawn
    }
}

/// Above all Gumbel noise that 53 bits give, which is at most -ln(2^-54).
const LARGEST_NOISE: f64 = 38.0;

/// Gumbel noise from 64 random bits.
fn gumbel(bits: u64) -> f64 {
    const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
    let uniform = ((bits >> 11) as f64 + 0.5) * UNIT;
    -(-uniform.ln()).ln()
}

/// Random bits for a number under a seed: the finalizer of SplitMix64 (Steele et al., OOPSLA 2014), twice.
fn mix(seed: u64, number: u64) -> u64 {
    let finalize = |mut bits: u64| {
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    };
    const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
    finalize(seed ^ finalize(number.wrapping_add(1).wrapping_mul(GOLDEN_RATIO)))
}
