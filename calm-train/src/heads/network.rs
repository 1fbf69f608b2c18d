//! What heads compute, differentiable in their weights.

use std::collections::BTreeMap;

use calm_checkpoint::{SharedHead, rounded_to_file};
use calm_core::{BackboneShape, ExitHead, Exits, HeadKind, Matrix, Token};
use calm_model::Weights;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use super::{ByLayer, HeadsConfig};
use crate::Error;

/// The shared head, and heads in front of it or instead of it.
pub(super) struct Network {
    kind: HeadKind,
    rank: usize,
    seed: u64,
    pub(super) layers: Vec<usize>,
    device: Device,
    /// The norm in front of the shared head: [d_model]
    norm: Tensor,
    epsilon: f64,
    /// The shared head's rows of the tokens that heads know: [tokens, d_model]
    pub(super) matrix: Tensor,
    /// The tokens that heads know: [tokens]; nothing if they know all.
    pub(super) tokens: Option<Tensor>,
}

/// What a head multiplies: the last product of a head, and the matrix over the vocabulary.
pub(super) struct Product {
    /// [states, d_model]
    pub(super) inputs: Tensor,
    /// [tokens, d_model]
    pub(super) matrix: Tensor,
}

impl Product {
    /// [states, tokens]
    pub(super) fn log_probabilities(&self) -> Tensor {
        log_probabilities(&self.inputs, &self.matrix)
    }
}

/// [states, d_model] -> [states, tokens]
pub(super) fn log_probabilities(inputs: &Tensor, matrix: &Tensor) -> Tensor {
    inputs.linear(matrix, None::<&Tensor>).log_softmax(-1, None::<Kind>)
}

impl Network {
    /// Takes the rows of the tokens that heads know from the shared head, all of those that outputs may have
    /// if there is nothing.
    pub(super) fn new(
        shared: &SharedHead,
        shape: &BackboneShape,
        known: Option<&[Token]>,
        config: &HeadsConfig,
        layers: Exits,
        device: Device,
    ) -> Self {
        let d_model = shared.norm.len() as i64;
        let all = Tensor::from_slice(&shared.vocabulary).view([-1, d_model]);
        let tokens = known.map(|known| {
            Tensor::from_slice(&known.iter().map(|&token| i64::from(token)).collect::<Vec<_>>())
        });
        let matrix = match &tokens {
            Some(tokens) => all.index_select(0, tokens),
            None => all.narrow(0, 0, shape.vocab_size as i64),
        };
        Self {
            kind: config.kind,
            rank: config.rank,
            seed: config.seed,
            layers: layers.layers().collect(),
            device,
            norm: Tensor::from_slice(&shared.norm).to_device(device),
            epsilon: shared.epsilon,
            matrix: matrix.to_device(device),
            tokens,
        }
    }

    /// The shared head: states [states, d_model]
    pub(super) fn shared(&self, states: &Tensor) -> Product {
        Product { inputs: self.normed(states, &self.norm), matrix: self.matrix.shallow_clone() }
    }

    fn normed(&self, states: &Tensor, weight: &Tensor) -> Tensor {
        states.rms_norm(weight.size(), Some(weight), Some(self.epsilon))
    }

    /// A head up to its last product: states [states, d_model]
    pub(super) fn product(&self, layer: usize, states: &Tensor, weights: &Weights) -> Product {
        let weight = |part: &str| tensor(weights, layer, part);
        match self.kind {
            HeadKind::LowRank => {
                let narrow = self.normed(states, weight("norm")).linear(weight("down"), None::<&Tensor>);
                self.shared(&(states + narrow.linear(weight("up"), None::<&Tensor>)))
            }
            HeadKind::Affine => self.shared(&states.linear(weight("weight"), Some(weight("bias")))),
            HeadKind::Linear => Product {
                inputs: self.normed(states, weight("norm")),
                matrix: weight("vocabulary").shallow_clone(),
            },
        }
    }

    /// Whether heads learn the matrix that they multiply with.
    pub(super) fn learns_matrix(&self) -> bool {
        self.kind == HeadKind::Linear
    }

    /// All heads as they begin: they say what the shared head does.
    pub(super) fn initial_weights(&self) -> Weights {
        let _no_grad = tch::no_grad_guard();
        let (d_model, rank) = (self.norm.size()[0], self.rank as i64);
        let options = (Kind::Float, Device::Cpu);
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut tensors = BTreeMap::new();
        for &layer in &self.layers {
            let mut add = |part: &str, tensor: Tensor| tensors.insert(name(layer, part), tensor);
            match self.kind {
                HeadKind::LowRank => {
                    // Of the deviation 1 / sqrt(d_model), so that what the norm gives keeps its size.
                    let most = (3.0 / d_model as f64).sqrt();
                    let numbers: Vec<f32> =
                        (0..rank * d_model).map(|_| random.random_range(-most..most) as f32).collect();
                    add("norm", Tensor::ones([d_model], options));
                    add("down", Tensor::from_slice(&numbers).view([rank, d_model]));
                    add("up", Tensor::zeros([d_model, rank], options));
                }
                HeadKind::Affine => {
                    add("weight", Tensor::eye(d_model, options));
                    add("bias", Tensor::zeros([d_model], options));
                }
                HeadKind::Linear => {
                    add("norm", self.norm.copy());
                    add("vocabulary", self.matrix.copy());
                }
            }
        }
        Weights::new(tensors)
    }

    /// Heads as the file will have them.
    pub(super) fn exit_heads(&self, weights: &Weights) -> Result<ByLayer<ExitHead>, Error> {
        let head = |&layer: &usize| {
            let head = ExitHead::of_tensors(self.kind, self.epsilon as f32, |part| {
                let tensor = tensor(weights, layer, part);
                let columns = tensor.size().last().map_or(0, |&columns| columns as usize);
                let flat = tensor.to_device(Device::Cpu).contiguous().view(-1);
                let data = Vec::<f32>::try_from(&flat)?.into_iter().map(rounded_to_file).collect();
                Ok::<_, Error>(Matrix { data, columns })
            })?;
            Ok((layer, head))
        };
        self.layers.iter().map(head).collect()
    }

    /// Tensors of heads.
    pub(super) fn weights_of(&self, heads: &ByLayer<ExitHead>) -> Weights {
        let mut tensors = BTreeMap::new();
        for (&layer, head) in heads {
            for (part, shape, numbers) in head.tensors() {
                let shape: Vec<i64> = shape.into_iter().map(|size| size as i64).collect();
                // A vector is a matrix of one row in a head.
                let shape = if part == "norm" || part == "bias" { vec![numbers.len() as i64] } else { shape };
                let tensor = Tensor::from_slice(numbers).view(shape.as_slice()).to_device(self.device);
                tensors.insert(name(layer, part), tensor);
            }
        }
        Weights::new(tensors)
    }
}

fn name(layer: usize, part: &str) -> String {
    format!("layer.{layer}.{part}")
}

fn tensor<'a>(weights: &'a Weights, layer: usize, part: &str) -> &'a Tensor {
    weights.get(&name(layer, part)).expect("a head has all tensors of its kind")
}
