//! The weights of an untrained network.

use std::collections::BTreeMap;

use calm_checkpoint::{NetworkConfig, Parameter};
use tch::{Device, Kind, Tensor};

use crate::Weights;

/// Draws random weights in f32. The same configuration and seed give the same weights on the CPU.
pub fn random_weights(config: &dyn NetworkConfig, seed: i64) -> Weights {
    tch::manual_seed(seed);
    let tensors = config.parameters().into_iter().map(|parameter| {
        let Parameter { name, shape, deviation } = parameter;
        let options = (Kind::Float, Device::Cpu);
        let tensor = match deviation {
            Some(deviation) => Tensor::randn(&shape, options) * deviation,
            None => Tensor::ones(&shape, options),
        };
        (name, tensor)
    });
    Weights::new(tensors.collect::<BTreeMap<_, _>>())
}
