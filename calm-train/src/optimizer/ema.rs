//! The exponential moving average of the parameters (Polyak and Juditsky 1992, with the decay of TensorFlow's
//! `ExponentialMovingAverage`).

use calm_model::Weights;
use tch::{Kind, Tensor};

/// The average, in f32. It starts as the parameters themselves.
pub(super) struct ParameterAverage {
    decay: f64,
    average: Weights,
}

impl ParameterAverage {
    /// What the names of its tensors in a checkpoint start with.
    pub(super) const PREFIX: &str = "ema.";

    pub(super) fn new(decay: f64, parameters: &Weights) -> Self {
        let copy = |parameter: &Tensor| parameter.detach().to_dtype(Kind::Float, false, true);
        ParameterAverage { decay, average: parameters.map(copy) }
    }

    /// Takes in the parameters after step `step`, counted from 1.
    pub(super) fn update(&mut self, parameters: &Weights, step: u64) {
        // Without the warm-up, a run of less than 1 / (1 - decay) steps would publish its random start.
        let decay = self.decay.min((1 + step) as f64 / (10 + step) as f64);
        for ((_, average), (_, parameter)) in self.average.iter().zip(parameters.iter()) {
            let _ = average.shallow_clone().lerp_(parameter, 1.0 - decay);
        }
    }

    pub(super) fn parameters(&self) -> &Weights {
        &self.average
    }

    pub(super) fn state(&self) -> impl Iterator<Item = (String, Tensor)> {
        let named =
            |(name, tensor): (&str, &Tensor)| (Self::PREFIX.to_owned() + name, tensor.shallow_clone());
        self.average.iter().map(named)
    }
}
