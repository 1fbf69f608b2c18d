//! The multi-exit loss: every exit's cross-entropy over the same head.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use crate::config::{ExitWeights, ObjectiveConfig};

/// Rows of logits that exist at a time. Few enough that they stay in the processor's cache between the product, the
/// softmax and the two products of the gradient; many enough for the products to be fast.
const CHUNK_ROWS: i64 = 512;

/// An exit and the factor of its loss in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeightedExit {
    /// Layer, from 1.
    pub layer: usize,
    /// Factor of its mean loss per token.
    pub weight: f64,
}

/// Weights of all exits; they sum to 1.
pub fn exit_weights(weights: ExitWeights, layers: usize) -> Vec<f64> {
    let raw: Vec<f64> = (1..=layers)
        .map(|layer| match weights {
            ExitWeights::Linear => layer as f64,
            ExitWeights::Uniform => 1.0,
            ExitWeights::Last => f64::from(u8::from(layer == layers)),
        })
        .collect();
    let sum: f64 = raw.iter().sum();
    raw.into_iter().map(|weight| weight / sum).collect()
}

/// The exits that a step computes: the last one always, and of the others all or `sampled_exits` draws. A draw hits layer i
/// with probability proportional to its weight w_i and has the weight (sum of w below the last) / draws, so that the
/// expected loss is the full weighted sum.
pub fn exits_of_step(config: &ObjectiveConfig, layers: usize, seed: u64, step: u64) -> Vec<WeightedExit> {
    let weights = exit_weights(config.exit_weights, layers);
    let last = WeightedExit { layer: layers, weight: weights[layers - 1] };
    let below = &weights[..layers - 1];
    let mass: f64 = below.iter().sum();
    let Some(draws) = config.sampled_exits.filter(|&draws| draws < below.len() && mass > 0.0) else {
        let exits = weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
        return exits.map(|(i, &weight)| WeightedExit { layer: i + 1, weight }).collect();
    };
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(step);
    let mut sampled = vec![0.0; below.len()];
    for _ in 0..draws {
        let mut point = random.random::<f64>() * mass;
        let hit = below.iter().position(|weight| {
            point -= weight;
            point < 0.0
        });
        sampled[hit.unwrap_or(below.len() - 1)] += mass / draws as f64;
    }
    let hits = sampled.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
    hits.map(|(i, &weight)| WeightedExit { layer: i + 1, weight }).chain([last]).collect()
}

/// Cross-entropy of one exit, and its gradient.
pub struct ExitLoss {
    /// Mean negative log-likelihood per token, without label smoothing; a scalar on the device.
    pub nll: Tensor,
    /// A scalar whose gradient with respect to the head's input is that of `weight` times the smoothed cross-entropy per token.
    pub surrogate: Tensor,
}

/// What the cross-entropy is computed from.
pub struct HeadLoss<'a> {
    /// [vocab_size, d_model]
    pub head: &'a Tensor,
    /// [tokens]
    pub targets: &'a Tensor,
    /// Mass spread over the vocabulary.
    pub label_smoothing: f64,
}

impl HeadLoss<'_> {
    /// Loss of head inputs [tokens, d_model]. The gradient is computed on the way, chunk by chunk (as in Liger's fused linear
    /// cross-entropy), since logits of all tokens and exits at once would be most of the memory of a training step.
    /// `head_gradient` [vocab_size, d_model] is added to.
    pub fn exit(&self, inputs: &Tensor, weight: f64, head_gradient: &mut Tensor) -> ExitLoss {
        let _no_grad = tch::no_grad_guard();
        let tokens = inputs.size()[0];
        let scale = weight / tokens as f64;
        let mut nll = Tensor::zeros([1], (Kind::Float, inputs.device()));
        let mut gradients = Vec::new();
        for start in (0..tokens).step_by(CHUNK_ROWS as usize) {
            let rows = CHUNK_ROWS.min(tokens - start);
            let chunk = inputs.detach().narrow(0, start, rows);
            let targets = self.targets.narrow(0, start, rows).unsqueeze(1);
            let mut p = chunk.linear(self.head, None::<&Tensor>).softmax(-1, None::<Kind>);
            nll -= p.gather(1, &targets, false).to_kind(Kind::Float).clamp_min(1e-30).log().sum(Kind::Float);
            // d CE / d logits = p - (1 - s) onehot - s / V
            if self.label_smoothing > 0.0 {
                let _ = p.g_sub_scalar_(self.label_smoothing / self.head.size()[0] as f64);
            }
            let ones = Tensor::full([rows, 1], -(1.0 - self.label_smoothing), (p.kind(), p.device()));
            let gradient = p.scatter_add_(1, &targets, &ones);
            gradients.push(gradient.matmul(self.head) * scale);
            *head_gradient += gradient.transpose(0, 1).matmul(&chunk).to_kind(Kind::Float) * scale;
        }
        let gradient = Tensor::cat(&gradients, 0);
        let surrogate = tch::with_grad(|| (inputs * gradient).sum(Kind::Float));
        ExitLoss { nll: nll / tokens as f64, surrogate }
    }
}
