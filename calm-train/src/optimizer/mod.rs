//! The optimisers.
//!
//! Their whole state can be saved; the state of libtorch's own optimisers cannot be reached through tch.
//!
//! tch has no binding of libtorch's operations on lists of tensors (`_foreach_*`). Therefore parameters of
//! one shape are one tensor ([`Parameters`]), in which every operation keeps them apart.

mod adafactor;
mod adamw;
mod config;
mod ema;

use std::collections::BTreeMap;

use calm_model::Weights;
use tch::{Kind, Tensor};

use self::adafactor::Adafactor;
use self::adamw::AdamW;
use self::ema::ParameterAverage;
use crate::parameters::{Gradients, Parameters};

pub use self::config::{OptimizerConfig, OptimizerKind};

/// An optimiser of one of the kinds, with the average of the parameters if the configuration asks for it.
pub struct Optimizer {
    config: OptimizerConfig,
    rule: Box<dyn Rule>,
    average: Option<ParameterAverage>,
    steps: u64,
}

/// Why a saved state cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The state is that of another kind of optimiser.
    #[error("its optimiser is {found}, not {expected}")]
    Kind {
        /// The kind of the state.
        found: OptimizerKind,
        /// The kind in the configuration.
        expected: OptimizerKind,
    },
    /// The configuration averages the parameters, but the saved run did not.
    #[error("it has no average of the parameters, for which optimizer.ema_decay asks")]
    NoAverage,
    /// The saved run averaged the parameters, but the configuration does not.
    #[error("it has an average of the parameters, for which optimizer.ema_decay does not ask")]
    UnwantedAverage,
    /// A tensor is missing or has another shape.
    #[error("{name} does not fit")]
    Tensor {
        /// The tensor's name in the state.
        name: String,
    },
}

impl Optimizer {
    /// Creates the state before the first step.
    pub fn new(config: &OptimizerConfig, parameters: &Parameters) -> Self {
        let rule: Box<dyn Rule> = match config.kind {
            OptimizerKind::AdamW => Box::new(AdamW::new(config, parameters)),
            OptimizerKind::Adafactor => Box::new(Adafactor::new(config, parameters)),
        };
        let average = config.ema_decay.map(|decay| ParameterAverage::new(decay, parameters));
        Optimizer { config: config.clone(), rule, average, steps: 0 }
    }

    /// Takes one step, and returns the norm of the gradient before clipping, a scalar on the device.
    ///
    /// Nothing waits for the device.
    pub fn step(&mut self, parameters: &Parameters, gradients: &Gradients, learning_rate: f64) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        self.steps += 1;
        let with_gradient = || {
            let stacks = parameters.stacks().iter().zip(gradients.iter()).enumerate();
            stacks.filter(|(_, (_, gradient))| gradient.defined())
        };
        let squares: Vec<Tensor> =
            with_gradient().map(|(_, (_, gradient))| gradient.square().sum(Kind::Float)).collect();
        let norm = Tensor::stack(&squares, 0).sum(Kind::Float).sqrt();
        let step = Step { number: self.steps, clip: (self.config.clip_norm / (&norm + 1e-6)).clamp_max(1.0) };
        let absolute = norm.full_like(learning_rate);
        let weight_decay = self.config.weight_decay();
        for (index, (stack, gradient)) in with_gradient() {
            let mut parameter = stack.tensor.detach();
            // The first dimension counts the parameters, so a matrix has three dimensions.
            if weight_decay > 0.0 && parameter.dim() > 2 {
                parameter *= 1.0 - learning_rate * weight_decay;
            }
            let learning_rate = if self.config.parameter_scale {
                let elements = parameter.numel() as f64 / parameter.size()[0] as f64;
                let mean_square = sum_of_each(&parameter.square()) / elements;
                &absolute * mean_square.sqrt().clamp_min(self.config.epsilon2)
            } else {
                absolute.shallow_clone()
            };
            self.rule.update(index, &step, Update { parameter, gradient, learning_rate });
        }
        if let Some(average) = &mut self.average {
            average.update(parameters, self.steps);
        }
        norm
    }

    /// Returns the parameters to score and to publish: their average if there is one, else `parameters`
    /// themselves.
    pub fn evaluation_parameters(&self, parameters: &Parameters) -> Weights {
        match &self.average {
            Some(average) => Weights::new(parameters.views_of(average.tensors().iter().map(Some)).collect()),
            None => parameters.weights(),
        }
    }

    /// Returns all that later steps depend on, besides the parameters and the number of steps.
    ///
    /// The tensors have names such as `adam.mean.NAME`, `adafactor.row.NAME` and `ema.NAME`, and share their
    /// memory with the optimiser's own.
    pub fn state(&self, parameters: &Parameters) -> Vec<(String, Tensor)> {
        let average = self.average.iter().map(|average| {
            (ParameterAverage::PREFIX, average.tensors().iter().map(Some).collect::<Vec<_>>())
        });
        let mut state = Vec::new();
        for (prefix, tensors) in self.rule.state().into_iter().chain(average) {
            let named = parameters.views_of(tensors);
            state.extend(named.map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
        }
        state
    }

    /// Takes the state after `steps` steps back out of `tensors`.
    ///
    /// # Errors
    /// Fails if the state is that of another kind, or if a tensor is missing or has another shape.
    pub fn restore(
        &mut self,
        parameters: &Parameters,
        tensors: &mut BTreeMap<String, Tensor>,
        steps: u64,
    ) -> Result<(), RestoreError> {
        let has = |prefix: &str| tensors.keys().any(|name| name.starts_with(prefix));
        let expected = self.config.kind;
        let other = |kind: &OptimizerKind| *kind != expected && has(kind.state_prefix());
        if let Some(found) = OptimizerKind::ALL.iter().copied().find(other) {
            return Err(RestoreError::Kind { found, expected });
        }
        match (self.average.is_some(), has(ParameterAverage::PREFIX)) {
            (true, false) => return Err(RestoreError::NoAverage),
            (false, true) => return Err(RestoreError::UnwantedAverage),
            _ => {}
        }
        let _no_grad = tch::no_grad_guard();
        for (name, mut slot) in self.state(parameters) {
            match tensors.remove(&name) {
                Some(tensor) if tensor.size() == slot.size() => slot.copy_(&tensor),
                _ => return Err(RestoreError::Tensor { name }),
            }
        }
        self.steps = steps;
        Ok(())
    }
}

/// What a kind of optimiser does with the gradients of parameters of one shape.
trait Rule {
    /// Moves the parameters of one stack.
    fn update(&mut self, stack: usize, step: &Step, update: Update<'_>);

    /// Returns what the rule remembers.
    ///
    /// Each entry has the start of the tensors' names in a checkpoint, and the tensor of each stack that has
    /// one.
    fn state(&self) -> Vec<(&'static str, Vec<Option<&Tensor>>)>;
}

/// What all parameters have in common in a step.
struct Step {
    /// Number of the step, from 1.
    number: u64,
    /// Factor on all gradients, a scalar on the device.
    clip: Tensor,
}

/// The parameters to move in a step.
struct Update<'a> {
    /// The parameters: [parameters, shape of one ..]
    parameter: Tensor,
    /// The gradients before clipping.
    gradient: &'a Tensor,
    /// The learning rate, on the device: a scalar, or [parameters, 1 ..] if it is relative to the size of
    /// each parameter.
    learning_rate: Tensor,
}

/// Sums over all dimensions but the first: [parameters, ..] -> [parameters, 1 ..]
fn sum_of_each(tensor: &Tensor) -> Tensor {
    let dimensions: Vec<i64> = (1..tensor.dim() as i64).collect();
    tensor.sum_dim_intlist(dimensions.as_slice(), true, Kind::Float)
}
