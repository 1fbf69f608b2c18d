//! The training of the heads of one backbone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use calm_core::{ExitHead, HeadConfidence};
use calm_files::hex;
use calm_model::{Weights, read_safetensors, write_safetensors};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use super::confidence::{self, Judged};
use super::network::{Network, Product, log_probabilities};
use super::states::States;
use super::{ByLayer, HeadScore, HeadsConfig};
use crate::Error;
use crate::objective::chunks;
use crate::optimizer::{Optimizer, OptimizerConfig};
use crate::parameters::Parameters;
use crate::progress::{LOG_EVERY, Progress};

/// Steps between two checkpoints.
const SAVE_EVERY: u64 = 100;

/// A confidence that counts as sure in scores.
const SURE: f64 = 0.9;

/// The training of the heads of one backbone.
pub(super) struct Training<'a> {
    pub(super) network: &'a Network,
    pub(super) config: &'a HeadsConfig,
    pub(super) device: Device,
    /// Where checkpoints lie.
    pub(super) work: &'a Path,
    /// Hash of the backbone's weights.
    pub(super) weights: &'a str,
}

impl Training<'_> {
    /// Trains on states, and gives the heads as the file will have them.
    pub(super) fn learn(&self, states: &States) -> Result<ByLayer<ExitHead>, Error> {
        let HeadsConfig { steps, learning_rate, batch_tokens, .. } = *self.config;
        let parameters = Parameters::separate(&self.network.initial_weights(), self.device);
        // What decays would be pulled away from where it begins, which is the shared head.
        let adam =
            OptimizerConfig { beta2: Some(0.999), weight_decay: Some(0.0), ..OptimizerConfig::default() };
        let mut optimizer = Optimizer::new(&adam, &parameters);
        let checkpoint = self.checkpoint(states);
        let done = restore(&checkpoint, &parameters, &mut optimizer).unwrap_or(0);
        let mut progress = Progress::heads(steps, done);
        let mut batches = Batches::new(states.tokens(), batch_tokens, self.config.seed);
        for step in done + 1..=steps {
            let batch = batches.get(step - 1);
            let (of_layers, last) = states.select(&batch);
            let of_layers: Vec<Tensor> =
                of_layers.iter().map(|states| states.to_device(self.device)).collect();
            let (divergence, surrogate) =
                self.step(&last.to_device(self.device), &of_layers, &parameters.cast(Kind::Float));
            let gradients = parameters.gradients(&surrogate);
            let rate = learning_rate * (1.0 - (step - 1) as f64 / steps as f64);
            let _gradient_norm = optimizer.step(&parameters, &gradients, rate);
            progress.count(batch.size()[0] as usize);
            if step.is_multiple_of(LOG_EVERY) {
                progress.show(step, divergence.double_value(&[]));
            }
            if step.is_multiple_of(SAVE_EVERY) && step < steps && parameters.are_finite() {
                save(&checkpoint, &parameters, &optimizer, step)?;
            }
        }
        progress.finish();
        if !parameters.are_finite() {
            let reason = format!("the training diverged; lower the learning rate, which is {learning_rate}");
            return Err(Error::Heads { reason });
        }
        save(&checkpoint, &parameters, &optimizer, steps)?;
        self.network.exit_heads(&parameters.weights())
    }

    /// Where the checkpoint of this training lies: a training of another kind has another file.
    fn checkpoint(&self, states: &States) -> PathBuf {
        let HeadsConfig { kind, rank, steps, learning_rate, batch_tokens, max_tokens, seed, .. } =
            self.config;
        let what = format!(
            "{} {kind} {rank} {:?} {steps} {learning_rate} {batch_tokens} {max_tokens} {seed} {} {}",
            self.weights,
            self.network.layers,
            states.tokens(),
            self.network
                .tokens
                .as_ref()
                .map_or(String::new(), |tokens| format!("{:?}", Vec::<i64>::try_from(tokens)))
        );
        self.work.join(format!("training-{}.safetensors", &hex(&Sha256::digest(what))[..16]))
    }

    /// The mean divergence of a batch, and tensors whose elements add up to something with its gradient.
    ///
    /// Logits exist a chunk at a time: each head's gradient is computed down to what its matrix multiplies
    /// before the next chunk.
    fn step(&self, last: &Tensor, of_layers: &[Tensor], weights: &Weights) -> (Tensor, Vec<Tensor>) {
        let products: Vec<Product> = self
            .network
            .layers
            .iter()
            .zip(of_layers)
            .map(|(&layer, states)| self.network.product(layer, states, weights))
            .collect();
        let (divergences, gradients) = self.gradients(&self.network.shared(last), &products);
        let mut surrogate = Vec::new();
        for (product, (inputs, matrix)) in products.iter().zip(gradients) {
            surrogate.push(&product.inputs * inputs);
            surrogate.extend(matrix.map(|matrix| &product.matrix * matrix));
        }
        (divergences.mean(Kind::Float), surrogate)
    }

    /// The mean divergence by head, and by head its gradients with respect to the inputs of its product and,
    /// where it learns that too, the matrix.
    fn gradients(&self, teacher: &Product, products: &[Product]) -> (Tensor, Vec<(Tensor, Option<Tensor>)>) {
        let _no_grad = tch::no_grad_guard();
        let tokens = teacher.inputs.size()[0] as f64;
        let scale = 1.0 / (tokens * products.len() as f64);
        let mut sums: Vec<Vec<Tensor>> = products.iter().map(|_| Vec::new()).collect();
        let mut inputs: Vec<Vec<Tensor>> = products.iter().map(|_| Vec::new()).collect();
        let learned = |product: &Product| self.network.learns_matrix().then(|| product.matrix.zeros_like());
        let mut matrices: Vec<Option<Tensor>> = products.iter().map(learned).collect();
        for (start, rows) in chunks(&teacher.inputs, &teacher.matrix) {
            let taught = log_probabilities(&teacher.inputs.narrow(0, start, rows), &teacher.matrix);
            let probabilities = taught.exp();
            for (index, product) in products.iter().enumerate() {
                let chunk = product.inputs.narrow(0, start, rows);
                let learned = log_probabilities(&chunk, &product.matrix);
                sums[index].push((&probabilities * (&taught - &learned)).sum(Kind::Float));
                // d KL(p || q) / d logits of q = q - p
                let gradient = (learned.exp() - &probabilities) * scale;
                inputs[index].push(gradient.matmul(&product.matrix));
                if let Some(matrix) = &mut matrices[index] {
                    *matrix += gradient.transpose(0, 1).matmul(&chunk);
                }
            }
        }
        let mean = |sums: Vec<Tensor>| Tensor::stack(&sums, 0).sum(Kind::Float) / tokens;
        let means: Vec<Tensor> = sums.into_iter().map(mean).collect();
        let joined = inputs.into_iter().map(|chunks| Tensor::cat(&chunks, 0));
        (Tensor::stack(&means, 0), joined.zip(matrices).collect())
    }

    /// Fits how likely the token of each head is the last layer's, to states that no head was trained on.
    pub(super) fn confidences(&self, heads: &ByLayer<ExitHead>, states: &States) -> ByLayer<HeadConfidence> {
        let _no_grad = tch::no_grad_guard();
        let weights = self.network.weights_of(heads);
        let of_layer = |(&layer, of_layer): (&usize, &Tensor)| {
            let judged = self.judge(of_layer, states, |states| self.network.product(layer, states, &weights));
            (layer, confidence::fit(of_layer, &judged))
        };
        states.of_layers.iter().map(of_layer).collect()
    }

    /// What the heads, and the shared head at their layers, make of outputs that were held out.
    pub(super) fn scores(
        &self,
        heads: &ByLayer<ExitHead>,
        confidences: &ByLayer<HeadConfidence>,
        states: &States,
    ) -> Vec<HeadScore> {
        let _no_grad = tch::no_grad_guard();
        let weights = self.network.weights_of(heads);
        let mean = |of: &Tensor| of.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        let score = |(&layer, of_layer): (&usize, &Tensor)| {
            let shared = self.judge(of_layer, states, |states| self.network.shared(states));
            let own = self.judge(of_layer, states, |states| self.network.product(layer, states, &weights));
            let sure = confidence::probabilities(&confidences[&layer], of_layer, &own).ge(SURE);
            HeadScore {
                layer,
                shared_divergence: mean(&shared.divergence),
                divergence: mean(&own.divergence),
                shared_agreement: mean(&shared.agrees),
                agreement: mean(&own.agrees),
                confident: mean(&sure),
                confident_agreement: match sure.any().int64_value(&[]) {
                    0 => 1.0,
                    _ => mean(&own.agrees.masked_select(&sure)),
                },
            }
        };
        states.of_layers.iter().map(score).collect()
    }

    /// What a head says at each of some states, beside the last layer.
    fn judge(&self, of_layer: &Tensor, states: &States, head: impl Fn(&Tensor) -> Product) -> Judged {
        let (mut divergences, mut margins, mut agrees) = (Vec::new(), Vec::new(), Vec::new());
        for (start, rows) in chunks(&states.last, &self.network.matrix) {
            let part = |of: &Tensor| of.narrow(0, start, rows).to_device(self.device);
            let taught = self.network.shared(&part(&states.last)).log_probabilities();
            let learned = head(&part(of_layer)).log_probabilities();
            let divergence = taught.exp() * (&taught - &learned);
            divergences.push(divergence.sum_dim_intlist([-1i64].as_slice(), false, Kind::Double));
            let (best, columns) = learned.exp().topk(2.min(learned.size()[1]), -1, true, true);
            let second = if best.size()[1] > 1 { best.select(1, 1) } else { best.select(1, 0).zeros_like() };
            margins.push(best.select(1, 0) - second);
            let columns = columns.select(1, 0).to_device(Device::Cpu);
            let tokens = match &self.network.tokens {
                Some(tokens) => tokens.index_select(0, &columns),
                None => columns,
            };
            agrees.push(tokens.eq_tensor(&states.best.narrow(0, start, rows)));
        }
        let joined = |parts: Vec<Tensor>| Tensor::cat(&parts, 0).to_device(Device::Cpu);
        Judged { divergence: joined(divergences), margin: joined(margins), agrees: joined(agrees) }
    }
}

/// Tokens in an order that is random under the seed, anew in each pass over them.
struct Batches {
    batch_tokens: usize,
    seed: u64,
    /// The pass that the order is of.
    epoch: Option<u64>,
    order: Vec<i64>,
}

impl Batches {
    fn new(tokens: usize, batch_tokens: usize, seed: u64) -> Self {
        let order = (0..tokens as i64).collect();
        Self { batch_tokens: batch_tokens.min(tokens), seed, epoch: None, order }
    }

    /// The tokens of a step, from 0 on.
    fn get(&mut self, step: u64) -> Tensor {
        let size = self.batch_tokens;
        let per_epoch = (self.order.len() / size.max(1)).max(1) as u64;
        let (epoch, place) = (step / per_epoch, (step % per_epoch) as usize);
        if self.epoch.replace(epoch) != Some(epoch) {
            self.order.sort_unstable();
            self.order.shuffle(&mut ChaCha8Rng::seed_from_u64(self.seed ^ (epoch << 32)));
        }
        Tensor::from_slice(&self.order[place * size..][..size])
    }
}

/// Writes all that later steps depend on.
fn save(path: &Path, parameters: &Parameters, optimizer: &Optimizer, step: u64) -> Result<(), Error> {
    let weights = parameters.weights();
    let weights = weights.iter().map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()));
    let step = [("step".to_owned(), Tensor::from_slice(&[step as i64]))];
    Ok(write_safetensors(path, weights.chain(optimizer.state(parameters)).chain(step))?)
}

/// Goes on from a checkpoint, if there is one, and says how many steps are done. One that is damaged is none.
fn restore(path: &Path, parameters: &Parameters, optimizer: &mut Optimizer) -> Option<u64> {
    let mut tensors: BTreeMap<String, Tensor> =
        if path.is_file() { read_safetensors(path, Device::Cpu).ok()? } else { return None };
    let step = tensors.remove("step")?.int64_value(&[0]) as u64;
    parameters.fill(&mut tensors).ok()?;
    optimizer.restore(parameters, &mut tensors, step).ok()?;
    Some(step)
}
