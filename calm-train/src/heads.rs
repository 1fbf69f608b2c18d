//! Exit heads on a frozen backbone, trained on its own predictions (Valade, Self-Supervised Early Exits).
//!
//! The backbone decodes sources at full depth. Along these outputs, each head learns the distribution of the
//! last layer from the state of its own: the loss is KL(last layer || head) at temperature 1, the mean over
//! tokens and heads. There are no labels, and the backbone's files stay as they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use calm_checkpoint::{HEADS_FILE, Model, rounded_to_file, source_hash, weights_hash, write_exit_heads};
use calm_core::{
    Backbone, DecodeOptions, ExitHead, ExitHeads, Exits, FittedTo, Full, HeadKind, Matrix, Token,
};
use calm_engine::decoding::decode_sources;
use calm_model::{Dropout, T5, TeacherForcing, Weights};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::batches::{Batch, BatchConfig, FrameTokens, collate, epoch_batches};
use crate::objective::chunks;
use crate::optimizer::{Optimizer, OptimizerConfig};
use crate::parameters::Parameters;
use crate::progress::{LOG_EVERY, Progress};
use crate::tokens::TokenPair;

/// One of so many sources is held out, to see what the heads have learned.
const HELD_OUT: usize = 8;

/// How exit heads are trained.
#[derive(Debug, Clone)]
pub struct HeadsConfig {
    /// What they compute.
    pub kind: HeadKind,
    /// Rank of those of low rank, at least 1.
    pub rank: usize,
    /// The layers that get one; all below the last if there is nothing.
    pub layers: Option<Exits>,
    /// Steps of AdamW, at least 1.
    pub steps: u64,
    /// Learning rate of the first step, from which it falls in a line, to 0 after the last.
    pub learning_rate: f64,
    /// Padded source tokens plus padded output tokens of a step, at most.
    pub batch_tokens: usize,
    /// Longest output, at least 1.
    pub max_tokens: usize,
    /// Sources decoded together.
    pub batch_size: usize,
    /// Batches decoded side by side, where the device does so.
    pub workers: usize,
    /// Decides the order of the sources and how heads begin.
    pub seed: u64,
    /// Whether heads that are there already may be replaced.
    pub overwrite: bool,
}

/// What a head has learned, on outputs of sources that were held out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HeadScore {
    /// The layer, from 1.
    pub layer: usize,
    /// KL(last layer || shared head at this layer) in nats, the mean over the tokens.
    pub shared_divergence: f64,
    /// The same for the exit head.
    pub divergence: f64,
    /// Share of tokens whose best token by the shared head at this layer is that of the last layer.
    pub shared_agreement: f64,
    /// The same by the exit head.
    pub agreement: f64,
}

/// Heads that were trained and written.
#[derive(Debug, Clone)]
pub struct TrainedHeads {
    /// Where they are.
    pub path: PathBuf,
    /// Output tokens that were held out.
    pub held_out_tokens: usize,
    /// How they fare there, by ascending layers.
    pub scores: Vec<HeadScore>,
}

/// Trains exit heads for the backbone in `folder` and writes them beside it.
///
/// # Errors
/// Fails if the backbone cannot be read or decoded with, if there are too few sources or a layer that cannot
/// have a head, if heads are there already, if the training diverges, or if the file cannot be written.
pub fn train_heads(
    folder: &Path,
    sources: &[Vec<Token>],
    config: &HeadsConfig,
    device: Device,
) -> Result<TrainedHeads, Error> {
    let path = folder.join(HEADS_FILE);
    if path.exists() && !config.overwrite {
        return Err(Error::HeadsTaken { path });
    }
    let backbone = weights_hash(folder)?;
    let model = T5::load_backbone(folder, device)?;
    let num_layers = model.shape().num_layers;
    let layers = config.layers.unwrap_or(Exits::all_below(num_layers));
    layers.check(num_layers).map_err(|error| Error::Heads { reason: error.to_string() })?;
    if layers.is_empty() {
        return Err(Error::Heads { reason: "a decoder of one layer has no layer below its last".to_owned() });
    }
    if sources.len() < HELD_OUT {
        let reason = format!("at least {HELD_OUT} sources are needed, and there are {}", sources.len());
        return Err(Error::Heads { reason });
    }
    let (trained_on, held_out) = decode_and_divide(&model, sources, config)?;
    let output_tokens = |pairs: &[TokenPair]| pairs.iter().map(|pair| pair.target.len()).sum::<usize>();
    let mut hashes: Vec<String> = sources.iter().map(|source| source_hash(source)).collect();
    hashes.sort();
    hashes.dedup();
    let tokens = output_tokens(&trained_on) + output_tokens(&held_out);
    let fitted_to = FittedTo { tokens, sources: hashes };

    let training = Training { model: &model, config, layers: layers.layers().collect(), device };
    let parameters = training.learn(&trained_on)?;
    let heads = training.exit_heads(&parameters)?;
    let scores = training.scores(&heads, &held_out);
    let exit_heads =
        ExitHeads::new(heads, fitted_to, model.shape()).map_err(|reason| Error::Heads { reason })?;
    write_exit_heads(folder, &exit_heads, &backbone, serde_json::json!(scores))?;
    Ok(TrainedHeads { path, held_out_tokens: output_tokens(&held_out), scores })
}

/// The sources with their outputs at full depth: those that are trained on, and those that are held out,
/// which the hashes of the sources decide.
fn decode_and_divide(
    model: &T5,
    sources: &[Vec<Token>],
    config: &HeadsConfig,
) -> Result<(Vec<TokenPair>, Vec<TokenPair>), Error> {
    let workers = if model.decodes_side_by_side() { config.workers.max(1) } else { 1 };
    let mut models: Vec<Box<dyn Model>> = (0..workers).map(|_| Model::share(model, 1)).collect();
    let options = DecodeOptions::new(config.max_tokens);
    let outputs = decode_sources(&mut models, sources, config.batch_size, &Full, &options, None)?;
    let mut pairs: Vec<(String, TokenPair)> = sources
        .iter()
        .zip(outputs)
        .map(|(source, output)| {
            (source_hash(source), TokenPair { source: source.clone(), target: output.tokens })
        })
        .collect();
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    let (mut trained_on, mut held_out) = (Vec::new(), Vec::new());
    for (place, (_, pair)) in pairs.into_iter().enumerate() {
        if place % HELD_OUT == 0 { held_out.push(pair) } else { trained_on.push(pair) }
    }
    Ok((trained_on, held_out))
}

/// The training of the heads of one backbone.
struct Training<'a> {
    model: &'a T5,
    config: &'a HeadsConfig,
    layers: Vec<usize>,
    device: Device,
}

/// States of the tokens of a batch.
struct States {
    /// What the shared head multiplies at the last layer: [tokens, d_model]
    teacher: Tensor,
    /// By head, the residual state that it begins from: [tokens, d_model]
    of_heads: Vec<Tensor>,
}

/// What a head multiplies: the last product of a head, and the matrix over the vocabulary.
struct Product {
    /// [tokens, d_model]
    inputs: Tensor,
    /// [vocab_size, d_model]
    matrix: Tensor,
}

impl Training<'_> {
    fn learn(&self, pairs: &[TokenPair]) -> Result<Parameters, Error> {
        let HeadsConfig { steps, learning_rate, batch_tokens, seed, .. } = *self.config;
        let parameters = Parameters::separate(&self.initial_weights(), self.device);
        // What decays would be pulled away from where it begins, which is the shared head.
        let adam =
            OptimizerConfig { beta2: Some(0.999), weight_decay: Some(0.0), ..OptimizerConfig::default() };
        let mut optimizer = Optimizer::new(&adam, &parameters);
        let mut progress = Progress::heads(steps);
        let length = |index: usize| pairs[index].length();
        let batches = (0..).flat_map(|epoch| {
            epoch_batches((0..pairs.len()).collect(), length, &BatchConfig { batch_tokens, seed }, epoch)
        });
        for (step, rows) in (1..=steps).zip(batches) {
            let rows: Vec<TokenPair> = rows.into_iter().map(|row| pairs[row].clone()).collect();
            let batch = collate(&rows, self.frame()).to_device(self.device);
            let (divergence, surrogate) = self.step(&batch, &parameters.cast(Kind::Float));
            let gradients = parameters.gradients(&surrogate);
            let rate = learning_rate * (1.0 - (step - 1) as f64 / steps as f64);
            let _gradient_norm = optimizer.step(&parameters, &gradients, rate);
            progress.count(batch.target_tokens);
            if step.is_multiple_of(LOG_EVERY) {
                progress.show(step, divergence.double_value(&[]));
            }
        }
        progress.finish();
        match parameters.are_finite() {
            true => Ok(parameters),
            false => Err(Error::Heads {
                reason: format!("the training diverged; lower the learning rate, which is {learning_rate}"),
            }),
        }
    }

    /// The mean divergence of a batch, and tensors whose elements add up to something with its gradient.
    ///
    /// Logits exist a chunk at a time: each head's gradient is computed down to what its matrix multiplies
    /// before the next chunk.
    fn step(&self, batch: &Batch, weights: &Weights) -> (Tensor, Vec<Tensor>) {
        let states = self.states(batch);
        let products: Vec<Product> = self
            .layers
            .iter()
            .zip(&states.of_heads)
            .map(|(&layer, state)| self.product(layer, state, weights))
            .collect();
        let (divergences, gradients) = self.gradients(&states.teacher, &products);
        let mut surrogate = Vec::new();
        for (product, (inputs, matrix)) in products.iter().zip(gradients) {
            surrogate.push(&product.inputs * inputs);
            surrogate.extend(matrix.map(|matrix| &product.matrix * matrix));
        }
        (divergences.mean(Kind::Float), surrogate)
    }

    /// The mean divergence by head, and by head its gradients with respect to the inputs of its product and,
    /// where it learns that too, the matrix.
    fn gradients(&self, teacher: &Tensor, products: &[Product]) -> (Tensor, Vec<(Tensor, Option<Tensor>)>) {
        let _no_grad = tch::no_grad_guard();
        let tokens = teacher.size()[0] as f64;
        let scale = 1.0 / (tokens * products.len() as f64);
        let learns_matrix = self.config.kind == HeadKind::Linear;
        let mut sums: Vec<Vec<Tensor>> = products.iter().map(|_| Vec::new()).collect();
        let mut inputs: Vec<Vec<Tensor>> = products.iter().map(|_| Vec::new()).collect();
        let mut matrices: Vec<Option<Tensor>> =
            products.iter().map(|product| learns_matrix.then(|| product.matrix.zeros_like())).collect();
        for (start, rows) in chunks(teacher, self.model.head()) {
            let taught = log_probabilities(&teacher.narrow(0, start, rows), self.model.head());
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

    /// What the heads, and the shared head at their layers, make of outputs that were held out.
    fn scores(&self, heads: &BTreeMap<usize, ExitHead>, pairs: &[TokenPair]) -> Vec<HeadScore> {
        let _no_grad = tch::no_grad_guard();
        let weights = self.weights_of(heads);
        let mut sums = vec![[0.0; 4]; self.layers.len()];
        let mut tokens = 0;
        let length = |index: usize| pairs[index].length();
        let batch_config = BatchConfig { batch_tokens: self.config.batch_tokens, seed: self.config.seed };
        for rows in epoch_batches((0..pairs.len()).collect(), length, &batch_config, 0) {
            let rows: Vec<TokenPair> = rows.into_iter().map(|row| pairs[row].clone()).collect();
            let batch = collate(&rows, self.frame()).to_device(self.device);
            tokens += batch.target_tokens;
            let states = self.states(&batch);
            for (start, rows) in chunks(&states.teacher, self.model.head()) {
                let taught = log_probabilities(&states.teacher.narrow(0, start, rows), self.model.head());
                let best = taught.argmax(-1, false);
                for ((&layer, state), sums) in self.layers.iter().zip(&states.of_heads).zip(&mut sums) {
                    let state = state.narrow(0, start, rows);
                    let shared = Product {
                        inputs: self.model.head_input(&state),
                        matrix: self.model.head().shallow_clone(),
                    };
                    for (index, product) in [shared, self.product(layer, &state, &weights)].iter().enumerate()
                    {
                        let learned = log_probabilities(&product.inputs, &product.matrix);
                        let divergence = (taught.exp() * (&taught - &learned)).sum(Kind::Double);
                        let agrees = learned.argmax(-1, false).eq_tensor(&best).sum(Kind::Double);
                        sums[index] += divergence.double_value(&[]);
                        sums[2 + index] += agrees.double_value(&[]);
                    }
                }
            }
        }
        let mean = |sum: f64| sum / tokens.max(1) as f64;
        let score = |(&layer, sums): (&usize, [f64; 4])| HeadScore {
            layer,
            shared_divergence: mean(sums[0]),
            divergence: mean(sums[1]),
            shared_agreement: mean(sums[2]),
            agreement: mean(sums[3]),
        };
        self.layers.iter().zip(sums).map(score).collect()
    }

    /// States of the output tokens with teacher forcing, nothing of which is differentiated.
    fn states(&self, batch: &Batch) -> States {
        let _no_grad = tch::no_grad_guard();
        let all = self.model.decoder_states(&TeacherForcing {
            sources: &batch.sources,
            source_lengths: &batch.source_lengths,
            decoder_inputs: &batch.decoder_inputs,
            dropout: &Dropout::off(),
        });
        let of_layer = |layer: usize| all[layer - 1].flatten(0, 1).index_select(0, &batch.positions);
        States {
            teacher: self.model.head_input(&of_layer(all.len())),
            of_heads: self.layers.iter().map(|&layer| of_layer(layer)).collect(),
        }
    }

    /// A head up to its last product, differentiable in its weights: state [tokens, d_model]
    fn product(&self, layer: usize, state: &Tensor, weights: &Weights) -> Product {
        let weight = |part: &str| tensor(weights, layer, part);
        let normed = || {
            let norm = weight("norm");
            state.rms_norm(norm.size(), Some(norm), Some(self.model.config().layer_norm_epsilon))
        };
        let through_shared = |state: Tensor| Product {
            inputs: self.model.head_input(&state),
            matrix: self.model.head().shallow_clone(),
        };
        match self.config.kind {
            HeadKind::LowRank => {
                let narrow = normed().linear(weight("down"), None::<&Tensor>);
                through_shared(state + narrow.linear(weight("up"), None::<&Tensor>))
            }
            HeadKind::Affine => through_shared(state.linear(weight("weight"), Some(weight("bias")))),
            HeadKind::Linear => Product { inputs: normed(), matrix: weight("vocabulary").shallow_clone() },
        }
    }

    /// All heads as they begin: they say what the shared head does.
    fn initial_weights(&self) -> Weights {
        let _no_grad = tch::no_grad_guard();
        let (model, rank) = (self.model, self.config.rank as i64);
        let d_model = model.config().d_model;
        let options = (Kind::Float, Device::Cpu);
        let mut random = ChaCha8Rng::seed_from_u64(self.config.seed);
        let mut tensors = BTreeMap::new();
        for &layer in &self.layers {
            let mut add = |part: &str, tensor: Tensor| tensors.insert(name(layer, part), tensor);
            match self.config.kind {
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
                    // A tied head multiplies with a factor, which becomes part of the norm.
                    add("norm", model.head_norm() * model.config().head_scale());
                    add("vocabulary", model.head().copy());
                }
            }
        }
        Weights::new(tensors)
    }

    /// The heads as the file will have them.
    fn exit_heads(&self, parameters: &Parameters) -> Result<BTreeMap<usize, ExitHead>, Error> {
        let weights = parameters.weights();
        let epsilon = self.model.config().layer_norm_epsilon as f32;
        let head = |&layer: &usize| {
            let head = ExitHead::of_tensors(self.config.kind, epsilon, |part| {
                let tensor = tensor(&weights, layer, part);
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
    fn weights_of(&self, heads: &BTreeMap<usize, ExitHead>) -> Weights {
        let mut tensors = BTreeMap::new();
        for (&layer, head) in heads {
            for (part, shape, numbers) in head.tensors() {
                let shape: Vec<i64> = shape.into_iter().map(|size| size as i64).collect();
                let tensor = Tensor::from_slice(numbers).view(shape.as_slice()).to_device(self.device);
                tensors.insert(name(layer, part), tensor);
            }
        }
        Weights::new(tensors)
    }

    fn frame(&self) -> FrameTokens {
        let config = self.model.config();
        FrameTokens { start: config.start_token(), pad: config.pad_token_id }
    }
}

fn name(layer: usize, part: &str) -> String {
    format!("layer.{layer}.{part}")
}

fn tensor<'a>(weights: &'a Weights, layer: usize, part: &str) -> &'a Tensor {
    weights.get(&name(layer, part)).expect("a head has all tensors of its kind")
}

/// [tokens, d_model] -> [tokens, vocab_size]
fn log_probabilities(inputs: &Tensor, matrix: &Tensor) -> Tensor {
    inputs.linear(matrix, None::<&Tensor>).log_softmax(-1, None::<Kind>)
}
