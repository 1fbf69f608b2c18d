//! AdamW whose whole state can be saved, which libtorch's optimisers through tch cannot.

use std::collections::BTreeMap;

use calm_model::Weights;
use tch::{Kind, Tensor};

use crate::config::OptimizerConfig;

/// Least scale of a parameter, so that one that is all zero can leave zero (epsilon_2 of Adafactor).
const SMALLEST_SCALE: f64 = 1e-3;

/// First and second moments of every parameter, by the parameter's name.
pub struct AdamW {
    config: OptimizerConfig,
    moments: BTreeMap<String, Moments>,
    steps: u64,
}

struct Moments {
    mean: Tensor,
    square: Tensor,
}

impl AdamW {
    /// Zero moments for every parameter.
    pub fn new(config: &OptimizerConfig, parameters: &Weights) -> Self {
        let moments = parameters
            .iter()
            .map(|(name, parameter)| {
                let zeros = || Tensor::zeros_like(parameter).detach();
                (name.to_owned(), Moments { mean: zeros(), square: zeros() })
            })
            .collect();
        AdamW { config: config.clone(), moments, steps: 0 }
    }

    /// One step on the gradients that the parameters carry; clears them. Nothing waits for the device. Returns the norm of
    /// the gradient before clipping, a scalar on the device.
    pub fn step(&mut self, parameters: &Weights, learning_rate: f64) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        self.steps += 1;
        let with_gradient =
            || parameters.iter().map(|(name, p)| (name, p, p.grad())).filter(|(_, _, grad)| grad.defined());
        let squares: Vec<Tensor> =
            with_gradient().map(|(_, _, grad)| grad.square().sum(Kind::Float)).collect();
        let norm = Tensor::stack(&squares, 0).sum(Kind::Float).sqrt();
        let clip = (self.config.clip_norm / (&norm + 1e-6)).clamp_max(1.0);

        let OptimizerConfig { beta1, beta2, epsilon, weight_decay, .. } = self.config;
        let correction = |beta: f64| 1.0 - beta.powi(self.steps.min(i32::MAX as u64) as i32);
        let step_size = learning_rate / correction(beta1);
        let root_correction = correction(beta2).sqrt();
        for (name, parameter, grad) in with_gradient() {
            let Some(Moments { mean, square }) = self.moments.get_mut(name) else { continue };
            let grad = grad * &clip;
            let _ = mean.lerp_(&grad, 1.0 - beta1);
            *square *= beta2;
            let _ = square.addcmul_(&(&grad * (1.0 - beta2)), &grad);
            let mut parameter = parameter.detach();
            if weight_decay > 0.0 && parameter.dim() > 1 {
                parameter *= 1.0 - learning_rate * weight_decay;
            }
            let denominator = square.sqrt() / root_correction + epsilon;
            let mut update = &*mean * -step_size;
            if self.config.parameter_scale {
                let mean_square = parameter.square().sum(Kind::Float) / parameter.numel() as f64;
                update *= mean_square.sqrt().clamp_min(SMALLEST_SCALE);
            }
            let _ = parameter.addcdiv_(&update, &denominator);
        }
        for (_, parameter) in parameters.iter() {
            parameter.shallow_clone().zero_grad();
        }
        norm
    }

    /// The moments as tensors named `adam.mean.NAME` and `adam.square.NAME`.
    pub fn state(&self) -> impl Iterator<Item = (String, Tensor)> {
        self.moments.iter().flat_map(|(name, moments)| {
            [
                (format!("adam.mean.{name}"), moments.mean.shallow_clone()),
                (format!("adam.square.{name}"), moments.square.shallow_clone()),
            ]
        })
    }

    /// Takes the moments back out of `tensors`, as of `steps` steps. Returns the name of the first that is missing or of
    /// another shape.
    pub fn restore(&mut self, tensors: &mut BTreeMap<String, Tensor>, steps: u64) -> Result<(), String> {
        for (name, moments) in &mut self.moments {
            for (prefix, slot) in [("adam.mean", &mut moments.mean), ("adam.square", &mut moments.square)] {
                let name = format!("{prefix}.{name}");
                match tensors.remove(&name) {
                    Some(tensor) if tensor.size() == slot.size() => *slot = tensor.to_device(slot.device()),
                    _ => return Err(name),
                }
            }
        }
        self.steps = steps;
        Ok(())
    }
}
