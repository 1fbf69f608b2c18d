//! The parameters of a network as a few large tensors.

use std::collections::BTreeMap;

use calm_checkpoint::T5Config;
use calm_model::{T5, Weights};
use tch::{Device, Kind, Tensor};

use crate::Error;

/// All parameters of a network, those of one shape in one tensor.
///
/// A T5 has 200 parameters of six shapes, and an optimiser that takes them one by one would be most of a step
/// on a GPU. Properties of one matrix (its norm, its scale) remain its own.
pub struct Parameters {
    stacks: Vec<Stack>,
}

/// The parameters of one shape.
pub(crate) struct Stack {
    /// Names in the order of the first dimension, in groups that the network wants below each other.
    groups: Vec<Vec<String>>,
    /// The parameters, in f32 and with gradients: [parameters, shape of one ..]
    pub(crate) tensor: Tensor,
}

impl Parameters {
    /// Copies the weights of a network to a device, in f32.
    ///
    /// # Errors
    /// Fails if the weights are not those of the network.
    pub fn of_network(config: &T5Config, weights: &Weights, device: Device) -> Result<Self, Error> {
        // Building the network tells which tensors it takes, and which of them it takes below each other.
        T5::new(config, weights)?;
        Ok(Parameters::stack(weights, weights.requests(), device))
    }

    /// Copies weights that no network wants below each other to a device, in f32.
    pub fn separate(weights: &Weights, device: Device) -> Self {
        let groups = weights.iter().map(|(name, _)| vec![name.to_owned()]);
        Parameters::stack(weights, groups.collect(), device)
    }

    fn stack(weights: &Weights, groups: Vec<Vec<String>>, device: Device) -> Self {
        let _no_grad = tch::no_grad_guard();
        let tensors: BTreeMap<&str, &Tensor> = weights.iter().collect();
        let mut by_shape: Vec<(Vec<i64>, Vec<Vec<String>>)> = Vec::new();
        for group in groups {
            let shape = tensors[group[0].as_str()].size();
            match by_shape.iter_mut().find(|(other, _)| *other == shape) {
                Some((_, groups)) => groups.push(group),
                None => by_shape.push((shape, vec![group])),
            }
        }
        let stack = |(_, groups): (_, Vec<Vec<String>>)| {
            let members: Vec<&Tensor> = groups.iter().flatten().map(|name| tensors[name.as_str()]).collect();
            let tensor = Tensor::stack(&members, 0).to_device(device).to_kind(Kind::Float);
            Stack { groups, tensor: tensor.set_requires_grad(true) }
        };
        Parameters { stacks: by_shape.into_iter().map(stack).collect() }
    }

    /// Makes a differentiable cast for one pass of the network.
    pub fn cast(&self, kind: Kind) -> Weights {
        let (mut tensors, mut stacked) = (BTreeMap::new(), BTreeMap::new());
        for Stack { groups, tensor } in &self.stacks {
            let shape = &tensor.size()[1..];
            let sizes: Vec<i64> = groups.iter().map(|group| group.len() as i64).collect();
            // One operation joins the gradients of all parts into one tensor again.
            let parts = tensor.to_kind(kind).split_with_sizes(sizes, 0);
            for (group, part) in groups.iter().zip(parts) {
                match group.as_slice() {
                    [name] => {
                        tensors.insert(name.clone(), part.view(shape));
                    }
                    names => {
                        for (index, name) in (0..).zip(names) {
                            tensors.insert(name.clone(), part.select(0, index));
                        }
                        stacked.insert(names.to_vec(), part.flatten(0, 1));
                    }
                }
            }
        }
        Weights::new(tensors).with_stacked(stacked)
    }

    /// Computes the gradients of the sum of all elements of `outputs`.
    pub fn gradients(&self, outputs: &[Tensor]) -> Gradients {
        let leaves: Vec<&Tensor> = self.stacks.iter().map(|stack| &stack.tensor).collect();
        Gradients(Tensor::run_backward(outputs, &leaves, false, false))
    }

    /// Returns each parameter by its name, without its gradient. Changes to the tensors change the
    /// parameters.
    pub fn weights(&self) -> Weights {
        Weights::new(self.views_of(self.stacks.iter().map(|stack| Some(&stack.tensor))).collect())
    }

    /// Number of parameters.
    pub fn numel(&self) -> i64 {
        self.stacks.iter().map(|stack| stack.tensor.numel() as i64).sum()
    }

    /// Whether all parameters are finite numbers. Waits for the device.
    pub(crate) fn are_finite(&self) -> bool {
        self.stacks.iter().all(|stack| is_finite(&stack.tensor))
    }

    /// Copies the tensors that have names of parameters out of `tensors`, or says which one does not fit.
    ///
    /// # Errors
    /// Fails if a tensor is missing or has another shape.
    pub(crate) fn fill(&self, tensors: &mut BTreeMap<String, Tensor>) -> Result<(), String> {
        let _no_grad = tch::no_grad_guard();
        for (name, parameter) in self.weights().iter() {
            match tensors.remove(name) {
                Some(tensor) if tensor.size() == parameter.size() => parameter.shallow_clone().copy_(&tensor),
                Some(tensor) => return Err(format!("{name} has the shape {:?}", tensor.size())),
                None => return Err(format!("{name} is missing")),
            }
        }
        Ok(())
    }

    pub(crate) fn stacks(&self) -> &[Stack] {
        &self.stacks
    }

    /// Returns, by its name, the part of each parameter in tensors that go with the stacks: [parameters, ..]
    ///
    /// A stack may have no tensor.
    pub(crate) fn views_of<'a>(
        &self,
        tensors: impl IntoIterator<Item = Option<&'a Tensor>>,
    ) -> impl Iterator<Item = (String, Tensor)> {
        let with_tensor =
            self.stacks.iter().zip(tensors).filter_map(|(stack, tensor)| Some((stack, tensor?)));
        with_tensor.flat_map(|(stack, tensor)| {
            let names = stack.groups.iter().flatten().cloned();
            names.zip(tensor.detach().unbind(0))
        })
    }
}

/// Whether all elements are finite numbers. Waits for the device.
pub(crate) fn is_finite(tensor: &Tensor) -> bool {
    tensor.isfinite().all().int64_value(&[]) != 0
}

/// The gradients of all parameters, in the order of their stacks.
///
/// The gradient of a stack that nothing depends on is undefined.
pub struct Gradients(Vec<Tensor>);

impl Gradients {
    /// Adds the gradients of another batch.
    pub fn add(&mut self, other: Gradients) {
        for (sum, gradient) in self.0.iter_mut().zip(other.0) {
            match (sum.defined(), gradient.defined()) {
                (true, true) => *sum += gradient,
                (false, true) => *sum = gradient,
                (_, false) => {}
            }
        }
    }

    /// Returns the gradients of each stack.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.0.iter()
    }
}
