//! AdamW (Loshchilov and Hutter 2019, algorithm 2), apart from the decay of the weights, which is every optimiser's.

use std::collections::BTreeMap;

use calm_model::Weights;
use tch::Tensor;

use super::{OptimizerConfig, Rule, Step, Update};

/// First and second moments of every parameter, by the parameter's name.
pub(super) struct AdamW {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    moments: BTreeMap<String, Moments>,
}

struct Moments {
    mean: Tensor,
    square: Tensor,
}

impl AdamW {
    pub(super) fn new(config: &OptimizerConfig, parameters: &Weights) -> Self {
        let moments = |parameter: &Tensor| {
            let zeros = || Tensor::zeros_like(parameter).detach();
            Moments { mean: zeros(), square: zeros() }
        };
        AdamW {
            beta1: config.beta1.unwrap_or(0.9),
            beta2: config.beta2.unwrap_or(0.98),
            epsilon: config.epsilon.unwrap_or(1e-8),
            moments: parameters.iter().map(|(name, p)| (name.to_owned(), moments(p))).collect(),
        }
    }
}

impl Rule for AdamW {
    fn update(&mut self, name: &str, step: &Step, update: Update) {
        let Some(Moments { mean, square }) = self.moments.get_mut(name) else { return };
        let correction = |beta: f64| 1.0 - beta.powi(step.number.min(i32::MAX as u64) as i32);
        let root_correction = correction(self.beta2).sqrt();
        let mut gradient = &update.gradient * &step.clip;
        let _ = mean.lerp_(&gradient, 1.0 - self.beta1);
        let _ = square.lerp_(&gradient.square_(), 1.0 - self.beta2);
        // The unbiased root is sqrt(square) / root_correction: both sides of the fraction are multiplied by the latter, one
        // pass over the tensor less.
        let denominator = square.sqrt().g_add_scalar_(self.epsilon * root_correction);
        let numerator = &*mean * (update.learning_rate * (-root_correction / correction(self.beta1)));
        let mut parameter = update.parameter;
        let _ = parameter.addcdiv_(&numerator, &denominator);
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let of_parameter = |(name, moments): (&String, &Moments)| {
            [("mean", &moments.mean), ("square", &moments.square)]
                .map(|(moment, tensor)| (format!("adam.{moment}.{name}"), tensor.shallow_clone()))
        };
        self.moments.iter().flat_map(of_parameter).collect()
    }
}
