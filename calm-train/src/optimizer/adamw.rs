//! AdamW (Loshchilov and Hutter 2019, algorithm 2).
//!
//! The decay of the weights is not here, since every optimiser has it.

use tch::Tensor;

use super::{OptimizerConfig, Rule, Step, Update};
use crate::parameters::Parameters;

/// The first and second moments of every parameter.
pub(super) struct AdamW {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    /// The moments of each stack of parameters.
    moments: Vec<Moments>,
}

struct Moments {
    mean: Tensor,
    square: Tensor,
}

impl AdamW {
    pub(super) fn new(config: &OptimizerConfig, parameters: &Parameters) -> Self {
        let moments = |parameter: &Tensor| {
            let zeros = || Tensor::zeros_like(parameter).detach();
            Moments { mean: zeros(), square: zeros() }
        };
        AdamW {
            beta1: config.beta1.unwrap_or(0.9),
            beta2: config.beta2.unwrap_or(0.98),
            epsilon: config.epsilon.unwrap_or(1e-8),
            moments: parameters.stacks().iter().map(|stack| moments(&stack.tensor)).collect(),
        }
    }
}

impl Rule for AdamW {
    fn update(&mut self, stack: usize, step: &Step, update: Update) {
        let Moments { mean, square } = &mut self.moments[stack];
        let correction = |beta: f64| 1.0 - beta.powi(step.number.min(i32::MAX as u64) as i32);
        let root_correction = correction(self.beta2).sqrt();
        let mut gradient = update.gradient * &step.clip;
        let _ = mean.lerp_(&gradient, 1.0 - self.beta1);
        let _ = square.lerp_(&gradient.square_(), 1.0 - self.beta2);
        // The unbiased root is sqrt(square) / root_correction. Multiplying both sides of the fraction by the
        // latter saves one pass over the tensor.
        let denominator = square.sqrt().g_add_scalar_(self.epsilon * root_correction);
        let numerator = &*mean * (update.learning_rate * (-root_correction / correction(self.beta1)));
        let mut parameter = update.parameter;
        let _ = parameter.addcdiv_(&numerator, &denominator);
    }

    fn state(&self) -> Vec<(&'static str, Vec<Option<&Tensor>>)> {
        let of = |moment: fn(&Moments) -> &Tensor| self.moments.iter().map(|m| Some(moment(m))).collect();
        vec![("adam.mean.", of(|m| &m.mean)), ("adam.square.", of(|m| &m.square))]
    }
}
