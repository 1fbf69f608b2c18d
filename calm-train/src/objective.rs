//! The multi-exit loss, which consists of every exit's cross-entropy over the same head.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use crate::config::{ExitSampling, ExitWeights, ObjectiveConfig};

/// Number of rows of logits that exist at a time.
///
/// On a CPU they are few enough to stay in its cache between the product, the softmax and the two products of
/// the gradient. On a GPU they are as many as 512 MiB hold in 16 bits, since there a launch is what costs.
fn chunk_rows(head: &Tensor) -> i64 {
    const CUDA_LOGITS: i64 = 1 << 28;
    if head.device().is_cuda() { (CUDA_LOGITS / head.size()[0]).max(1) } else { 512 }
}

/// An exit and the factor of its loss in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeightedExit {
    /// Number of the layer, from 1.
    pub layer: usize,
    /// Factor of the exit's mean loss per token.
    pub weight: f64,
}

/// Computes the weights of all exits, which sum to 1.
pub fn exit_weights(config: &ObjectiveConfig, layers: usize) -> Vec<f64> {
    if let Some(shallow_deep) = &config.shallow_deep {
        let of_layer = |layer: usize| {
            let is_exit = layer == shallow_deep.layer || layer == layers;
            if is_exit { layer as f64 / (shallow_deep.layer + layers) as f64 } else { 0.0 }
        };
        return (1..=layers).map(of_layer).collect();
    }
    let mut weights: Vec<f64> = (1..=layers)
        .map(|layer| match config.exit_weights {
            ExitWeights::Linear => layer as f64,
            ExitWeights::Uniform => 1.0,
            ExitWeights::Last => f64::from(u8::from(layer == layers)),
        })
        .collect();
    let below: f64 = weights[..layers - 1].iter().sum();
    if let Some(last) = config.last_weight.filter(|_| below > 0.0) {
        weights[layers - 1] = below * last / (1.0 - last);
    }
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Chooses the exits that a step computes: always the last one, and all of the others or `sampled_exits` of
/// them.
///
/// A draw hits layer i with probability proportional to its weight w_i and has the weight (sum of w below the
/// last) / draws; in rotation, layer i has the weight w_i times the number of draws that a turn takes. Either
/// way the expected loss is the full weighted sum.
pub fn exits_of_step(config: &ObjectiveConfig, layers: usize, seed: u64, step: u64) -> Vec<WeightedExit> {
    let weights = exit_weights(config, layers);
    let last = WeightedExit { layer: layers, weight: weights[layers - 1] };
    let below = &weights[..layers - 1];
    let mass: f64 = below.iter().sum();
    let Some(draws) = config.sampled_exits.filter(|&draws| draws < below.len() && mass > 0.0) else {
        let exits = weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
        return exits.map(|(i, &weight)| WeightedExit { layer: i + 1, weight }).collect();
    };
    let mut sampled = vec![0.0; below.len()];
    match config.sampling {
        ExitSampling::Random => {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream(step);
            for _ in 0..draws {
                let mut point = random.random::<f64>() * mass;
                let hit = below.iter().position(|weight| {
                    point -= weight;
                    point < 0.0
                });
                sampled[hit.unwrap_or(below.len() - 1)] += mass / draws as f64;
            }
        }
        ExitSampling::Rotating => {
            for draw in 0..draws {
                let hit = ((step * draws as u64 + draw as u64) % below.len() as u64) as usize;
                sampled[hit] = below[hit] * below.len() as f64 / draws as f64;
            }
        }
    }
    let hits = sampled.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
    hits.map(|(i, &weight)| WeightedExit { layer: i + 1, weight }).chain([last]).collect()
}

/// Computes the probability with which a row skips each decoder layer (LayerSkip, section 4.1, without a
/// curriculum over the steps).
///
/// Layer l of L, from 0, has p_max (exp(l ln 2 / (L - 1)) - 1), so that the first one always runs, also where
/// it is the only one.
pub fn skip_probabilities(config: &ObjectiveConfig, layers: usize) -> Vec<f64> {
    let last = layers.max(2) - 1;
    (0..layers).map(|layer| config.layer_dropout * ((layer as f64 / last as f64).exp2() - 1.0)).collect()
}

/// The result of an exit in one step, with the gradient of its cross-entropy.
pub struct ExitLoss {
    /// The probabilities of the targets: `[tokens]`
    pub target_probabilities: Tensor,
    /// The gradient of the weighted smoothed cross-entropy per token, with respect to the head's inputs:
    /// [tokens, d_model]
    pub gradient: Tensor,
}

/// What the cross-entropies of all exits are computed from.
pub struct HeadLoss<'a> {
    /// The matrix of the head: [vocab_size, d_model]
    pub head: &'a Tensor,
    /// The tokens to predict: `[tokens]`
    pub targets: &'a Tensor,
    /// Number of tokens that the mean is over: those of this batch, or of all the batches that make one step.
    pub step_tokens: usize,
    /// Probability mass that is spread over the vocabulary.
    pub label_smoothing: f64,
    /// Share of the teacher's distribution in what the other exits learn.
    pub distillation: f64,
}

impl HeadLoss<'_> {
    /// Computes the loss of one exit's head inputs [tokens, d_model].
    ///
    /// Its gradient with respect to the head is added to `head_gradient` [vocab_size, d_model].
    ///
    /// `teacher` are the head inputs of the exit that it learns from, if it does. The gradient is computed on
    /// the way, chunk by chunk (as in Liger's fused linear cross-entropy), since logits of all tokens and
    /// exits at once would be most of the memory of a training step.
    pub fn exit(
        &self,
        weight: f64,
        inputs: &Tensor,
        teacher: Option<&Tensor>,
        head_gradient: &mut Tensor,
    ) -> ExitLoss {
        let _no_grad = tch::no_grad_guard();
        let scale = weight / self.step_tokens as f64;
        let teacher = teacher.filter(|_| self.distillation > 0.0);
        let (mut gradients, mut of_targets) = (Vec::new(), Vec::new());
        for (start, rows) in chunks(inputs, self.head) {
            let targets = self.targets.narrow(0, start, rows).unsqueeze(1);
            let chunk = inputs.narrow(0, start, rows);
            let p = self.probabilities(&chunk);
            of_targets.push(p.gather(1, &targets, false).squeeze_dim(1));
            let taught = teacher.map(|teacher| self.probabilities(&teacher.narrow(0, start, rows)));
            let gradient = self.logits_gradient(p, &targets, taught);
            gradients.push(gradient.matmul(self.head) * scale);
            *head_gradient += gradient.transpose(0, 1).matmul(&(chunk * scale));
        }
        let target_probabilities = joined(of_targets);
        ExitLoss { target_probabilities, gradient: joined(gradients) }
    }

    /// Computes the probabilities of head inputs: [rows, d_model] -> [rows, vocab_size]
    fn probabilities(&self, inputs: &Tensor) -> Tensor {
        inputs.linear(self.head, None::<&Tensor>).softmax(-1, None::<Kind>)
    }

    /// Computes d CE / d logits = p - target distribution, and overwrites `p`.
    ///
    /// The target is (1 - a) of the smoothed labels, (1 - s) onehot + s / V, and a of the teacher's
    /// distribution.
    fn logits_gradient(&self, mut p: Tensor, targets: &Tensor, taught: Option<Tensor>) -> Tensor {
        let labels = if taught.is_some() { 1.0 - self.distillation } else { 1.0 };
        if self.label_smoothing > 0.0 {
            let _ = p.g_sub_scalar_(labels * self.label_smoothing / self.head.size()[0] as f64);
        }
        if let Some(taught) = taught {
            p -= taught * self.distillation;
        }
        let mass = -labels * (1.0 - self.label_smoothing);
        p.scatter_add_(1, targets, &Tensor::full(targets.size(), mass, (p.kind(), p.device())))
    }
}

/// Sums one exit's negative log-likelihood over the tokens.
///
/// Head inputs and `head` are as in [`HeadLoss`], `targets` is `[tokens]`.
pub fn exit_nll(inputs: &Tensor, head: &Tensor, targets: &Tensor) -> Tensor {
    let _no_grad = tch::no_grad_guard();
    let of_targets = chunks(inputs, head).map(|(start, rows)| {
        let logits = inputs.narrow(0, start, rows).linear(head, None::<&Tensor>);
        let targets = targets.narrow(0, start, rows).unsqueeze(1);
        logits.softmax(-1, None::<Kind>).gather(1, &targets, false).squeeze_dim(1)
    });
    nll_sums(&joined(of_targets.collect()))
}

/// Sums the negative log-likelihoods of probabilities, in f32: [.., tokens] -> [..]
pub fn nll_sums(probabilities: &Tensor) -> Tensor {
    let log = probabilities.to_kind(Kind::Float).clamp_min(1e-30).log();
    -log.sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
}

/// The first row and the number of rows of every chunk of `inputs` [tokens, d_model].
pub(crate) fn chunks(inputs: &Tensor, head: &Tensor) -> impl Iterator<Item = (i64, i64)> {
    let tokens = inputs.size()[0];
    let chunk_rows = chunk_rows(head);
    (0..tokens).step_by(chunk_rows as usize).map(move |start| (start, chunk_rows.min(tokens - start)))
}

/// Joins what was computed in chunks, without a copy if there was only one chunk.
fn joined(mut chunks: Vec<Tensor>) -> Tensor {
    if chunks.len() == 1 { chunks.remove(0) } else { Tensor::cat(&chunks, 0) }
}
