//! The exponential moving average of the parameters.
//!
//! See Polyak and Juditsky 1992. The decay is that of TensorFlow's `ExponentialMovingAverage`.

use tch::{Kind, Tensor};

use crate::parameters::Parameters;

/// The average, with an f32 tensor for each stack of parameters. It starts as the parameters themselves.
pub(super) struct ParameterAverage {
    decay: f64,
    average: Vec<Tensor>,
}

impl ParameterAverage {
    /// Start of the names that the average's tensors have in a checkpoint.
    pub(super) const PREFIX: &str = "ema.";

    pub(super) fn new(decay: f64, parameters: &Parameters) -> Self {
        let copy = |parameter: &Tensor| parameter.detach().to_dtype(Kind::Float, false, true);
        let average = parameters.stacks().iter().map(|stack| copy(&stack.tensor)).collect();
        ParameterAverage { decay, average }
    }

    /// Takes in the parameters after step `step`, counted from 1.
    pub(super) fn update(&mut self, parameters: &Parameters, step: u64) {
        // Without the warm-up, a run of less than 1 / (1 - decay) steps would publish its random start.
        let decay = self.decay.min((1 + step) as f64 / (10 + step) as f64);
        for (average, stack) in self.average.iter_mut().zip(parameters.stacks()) {
            let _ = average.lerp_(&stack.tensor, 1.0 - decay);
        }
    }

    pub(super) fn tensors(&self) -> &[Tensor] {
        &self.average
    }
}
