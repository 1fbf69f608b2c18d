//! Exit thresholds, constant or falling with the position.

use crate::error::PolicyError;

/// The exit threshold lambda and its decay tau.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    value: f64,
    decay: Option<f64>,
}

impl Threshold {
    /// A threshold from 0 to 1 and, unless it is constant, its decay tau >= 0.
    ///
    /// # Errors
    /// [`PolicyError::Threshold`] or [`PolicyError::Decay`] outside these ranges.
    pub fn new(value: f64, decay: Option<f64>) -> Result<Self, PolicyError> {
        if !(0.0..=1.0).contains(&value) {
            return Err(PolicyError::Threshold(value));
        }
        if let Some(tau) = decay.filter(|tau| !(tau.is_finite() && *tau >= 0.0)) {
            return Err(PolicyError::Decay(tau));
        }
        // The sum turns -0 into 0, so that equal thresholds have equal names.
        Ok(Self { value: value + 0.0, decay: decay.map(|tau| tau + 0.0) })
    }

    /// Lambda, from 0 to 1.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// Tau, or `None` for a constant threshold.
    pub fn decay(&self) -> Option<f64> {
        self.decay
    }

    /// Whether this is the threshold 1, which no token passes whatever its confidence.
    pub fn never_exits(&self) -> bool {
        self.value == 1.0
    }

    /// What the confidence has to reach at decoding position `position` (from 0) of at most `max_tokens`.
    ///
    /// With a decay this is Eq. 5 of the paper, `clip(0.9 lambda + 0.1 exp(-tau t/N), 0, 1)`. It starts above
    /// lambda and ends near 0.9 lambda, and with it even lambda = 1 would let tokens leave early. The
    /// guarantee (Prop. 1) needs lambda = 1 to be the full model, so 1 is not compared with: it is infinity.
    pub fn at(&self, position: usize, max_tokens: usize) -> f64 {
        match self.decay {
            _ if self.never_exits() => f64::INFINITY,
            None => self.value,
            Some(tau) => {
                let progress = position as f64 / max_tokens.max(1) as f64;
                (0.9 * self.value + 0.1 * (-tau * progress).exp()).clamp(0.0, 1.0)
            }
        }
    }
}
