//! A run from configuration to finished checkpoint.

use std::path::Path;

use calm_data::{Columns, read_examples};
use calm_model::{
    CLASSIFIER_BIAS, CLASSIFIER_WEIGHT, Dropout, T5, T5Config, TeacherForcing, Tokenizer, Weights,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::batches::{Batch, BatchConfig, FrameTokens, TokenPair, collate, epoch_batches};
use crate::classifier::{ClassifierTraining, LayerF1};
use crate::config::{Precision, TrainConfig};
use crate::objective::{HeadLoss, exits_of_step};
use crate::optimizer::Optimizer;
use crate::progress::{Progress, StepRecord};
use crate::schedule::learning_rate_factor;
use crate::validation::{Validation, ValidationOptions, validate};
use crate::{Error, checkpoint};

/// Steps between two records of the log. Reading the loss waits for the device.
const LOG_EVERY: u64 = 20;

/// What a finished run wrote next to the weights, as `training.json`.
#[derive(Debug, Clone, Serialize)]
pub struct TrainReport {
    /// The configuration of the run.
    pub config: TrainConfig,
    /// Parameters of the network.
    pub parameters: i64,
    /// Training examples after the limits on length.
    pub examples: usize,
    /// Passes over them.
    pub epochs: f64,
    /// Target tokens learned from.
    pub target_tokens: u64,
    /// Scores of the saved weights on held-out training examples, if any were held out.
    pub validation: Option<Validation>,
    /// The exit classifier per layer, on the same examples with teacher forcing; empty without examples or classifier.
    pub classifier: Vec<LayerF1>,
}

/// Trains from the last checkpoint, or from the start, and writes the finished model to `config.output`.
///
/// # Errors
/// Input is missing or unusable, a file cannot be written, or the loss stops being a number.
pub fn train(config: &TrainConfig, device: Device) -> Result<TrainReport, Error> {
    let tokenizer = Tokenizer::load(&config.tokenizer)?;
    let corpus = Corpus::load(config, &tokenizer)?;
    create_dir(&config.checkpoints)?;
    create_dir(&config.output)?;
    let mut run = Run::new(config, device, tokenizer, corpus)?;
    run.train_backbone()?;
    run.finish()
}

struct Corpus {
    train: Vec<TokenPair>,
    validation: Vec<TokenPair>,
}

struct Run<'a> {
    config: &'a TrainConfig,
    t5_config: T5Config,
    device: Device,
    tokenizer: Tokenizer,
    corpus: Corpus,
    parameters: Weights,
    optimizer: Optimizer,
}

impl Corpus {
    fn load(config: &TrainConfig, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let data = &config.data;
        let columns =
            Columns { source: data.source.clone(), target: data.target.clone(), ..Columns::default() };
        let mut train = Vec::new();
        for path in &data.train {
            for example in read_examples(path, &columns)? {
                let mut source = tokenizer.encode(&example.source)?;
                let target = tokenizer.encode(&example.target)?;
                if target.len() > data.max_target_tokens || source.is_empty() {
                    continue;
                }
                if source.len() > data.max_source_tokens {
                    let end = source.pop();
                    source.truncate(data.max_source_tokens - 1);
                    source.extend(end);
                }
                train.push(TokenPair { source, target });
            }
        }
        let held_out = config.validation.examples.min(train.len() / 10);
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        let mut chosen = rand::seq::index::sample(&mut random, train.len(), held_out).into_vec();
        chosen.sort_unstable();
        let mut validation = Vec::with_capacity(held_out);
        for &index in chosen.iter().rev() {
            validation.push(train.remove(index));
        }
        if train.is_empty() {
            return Err(Error::NoExamples);
        }
        Ok(Corpus { train, validation })
    }
}

impl<'a> Run<'a> {
    fn new(
        config: &'a TrainConfig,
        device: Device,
        tokenizer: Tokenizer,
        corpus: Corpus,
    ) -> Result<Self, Error> {
        let t5_config = config.t5_config(tokenizer.vocab_size());
        let parameters = calm_model::init::random_weights(&t5_config, config.seed as i64);
        let parameters = parameters.map(|tensor| tensor.to_device(device).set_requires_grad(true));
        let optimizer = Optimizer::new(&config.optimizer, &parameters);
        Ok(Run { config, t5_config, device, tokenizer, corpus, parameters, optimizer })
    }

    fn train_backbone(&mut self) -> Result<(), Error> {
        let config = self.config;
        let steps = config.schedule.steps;
        let mut step =
            checkpoint::restore(&config.checkpoints, &self.parameters, &mut self.optimizer, config.seed)?;
        if step > steps {
            let reason = format!("it is at step {step}, and schedule.steps is {steps}");
            return Err(Error::OtherRun { path: checkpoint::path(&config.checkpoints), reason });
        }
        let mut checkpointed = (step > 0).then_some(step);
        let mut progress = Progress::new(&config.checkpoints, steps, step)?;
        let mut order = BatchOrder::new(&self.corpus.train, config, step);
        while step < steps {
            step += 1;
            let mut epoch = 0.0;
            let mut batches = Vec::new();
            for _ in 0..config.optimizer.accumulate {
                let indices;
                (epoch, indices) = order.next(&self.corpus.train);
                batches.push(self.collate(&self.corpus.train, &indices));
            }
            let (nll, norm) = self.step(step, &batches)?;
            progress.count(batches.iter().map(|batch| batch.target_tokens).sum());
            let logged = step.is_multiple_of(LOG_EVERY) || step == steps;
            let saved = step.is_multiple_of(config.checkpoint_every) || step == steps;
            if logged || saved {
                let (loss, gradient_norm) = (nll.double_value(&[0]), norm.double_value(&[]));
                // Numbers that are none poison the parameters in this step or the next: never save those.
                if !(loss.is_finite() && gradient_norm.is_finite()) {
                    return Err(Error::Diverged { loss, step, gradient_norm, checkpoint: checkpointed });
                }
                if logged {
                    let learning_rate = self.learning_rate(step);
                    progress.record(StepRecord { step, epoch, loss, learning_rate, gradient_norm })?;
                }
            }
            let every = config.validation.every;
            if every > 0 && step.is_multiple_of(every) && step < steps {
                let model = T5::new(&self.t5_config, &self.evaluation_parameters())?;
                if let Some(validation) = self.validate(&model)? {
                    progress.validation(step, &validation)?;
                }
            }
            if saved {
                checkpoint::save(&config.checkpoints, &self.parameters, &self.optimizer, config.seed, step)?;
                checkpointed = Some(step);
            }
        }
        progress.finish();
        Ok(())
    }

    /// One step on the mean loss per target token over all batches together. Returns the last exit's loss and the gradient's
    /// norm, both on the device.
    fn step(&mut self, step: u64, batches: &[Batch]) -> Result<(Tensor, Tensor), Error> {
        tch::manual_seed((self.config.seed.wrapping_mul(1_000_003).wrapping_add(step)) as i64);
        let tokens: usize = batches.iter().map(|batch| batch.target_tokens).sum();
        let mut nll = Tensor::zeros([1], (Kind::Float, self.device));
        // Each batch has exits of its own: of the sampled ones, that is a better sample.
        for (draw, batch) in ((step - 1) * batches.len() as u64 + 1..).zip(batches) {
            nll += self.add_gradient(draw, batch, batch.target_tokens as f64 / tokens as f64)?;
        }
        let norm = self.optimizer.step(&self.parameters, self.learning_rate(step));
        Ok((nll, norm))
    }

    /// Adds the gradient of a batch's mean loss, times `share`, to the parameters'. `draw` decides which exits are sampled.
    /// Returns the last exit's loss times `share`, on the device.
    fn add_gradient(&self, draw: u64, batch: &Batch, share: f64) -> Result<Tensor, Error> {
        let config = self.config;
        let kind = match config.precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        };
        // A differentiable cast per step: activations in `kind`, parameters and their gradients in f32.
        let model = T5::new(&self.t5_config, &self.parameters.map(|tensor| tensor.to_kind(kind)))?;
        let states = model.decoder_states(&TeacherForcing {
            sources: &batch.sources,
            decoder_inputs: &batch.decoder_inputs,
            dropout: Dropout { rate: config.objective.dropout },
        });
        let head = HeadLoss {
            head: &model.head().detach(),
            targets: &batch.targets,
            label_smoothing: config.objective.label_smoothing,
        };
        let dropout = Dropout { rate: config.objective.dropout };
        let mut head_gradient = Tensor::zeros(model.head().size(), (Kind::Float, self.device));
        let mut total = Tensor::zeros([1], (Kind::Float, self.device));
        let mut last_nll = Tensor::new();
        for exit in exits_of_step(&config.objective, states.len(), config.seed, draw) {
            let inputs = dropout.apply(&model.head_input(&states[exit.layer - 1]));
            let inputs = inputs.flatten(0, 1).index_select(0, &batch.positions);
            let loss = head.exit(&inputs, exit.weight * share, &mut head_gradient);
            total += loss.surrogate;
            last_nll = loss.nll;
        }
        total += (model.head() * head_gradient.to_kind(kind)).sum(Kind::Float);
        total.backward();
        Ok(last_nll * share)
    }

    /// Writes the weights in bf16, trains the classifier on what was written, scores it, and writes the rest.
    fn finish(&mut self) -> Result<TrainReport, Error> {
        let config = self.config;
        let weights_file = config.output.join("model.safetensors");
        let rounded = tch::no_grad(|| {
            let parameters = self.evaluation_parameters();
            parameters.map(|tensor| tensor.to_kind(Kind::BFloat16).to_kind(Kind::Float))
        });
        let model = T5::new(&self.t5_config, &rounded)?;
        let mut tensors: std::collections::BTreeMap<String, Tensor> =
            rounded.iter().map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect();
        let mut scores = Vec::new();
        if config.classifier.steps > 0 {
            let mut classifier = ClassifierTraining::new(&model, config.classifier.learning_rate);
            let mut progress = Progress::classifier(config.classifier.steps);
            let batch_config =
                BatchConfig { batch_tokens: config.data.batch_tokens, seed: config.seed ^ CLASSIFIER_SEED };
            let batches = (0..).flat_map(|epoch| epoch_batches(&self.corpus.train, &batch_config, epoch));
            for (step, indices) in (1..=config.classifier.steps).zip(batches) {
                let batch = self.collate(&self.corpus.train, &indices);
                let loss = classifier.step(&model, &batch);
                progress.count(batch.target_tokens);
                if step.is_multiple_of(LOG_EVERY) {
                    progress.show(step, loss.double_value(&[]));
                }
            }
            progress.finish();
            let held_out: Vec<Batch> = epoch_batches(&self.corpus.validation, &batch_config, 0)
                .iter()
                .map(|indices| self.collate(&self.corpus.validation, indices))
                .collect();
            if !held_out.is_empty() {
                scores = classifier.f1(&model, &held_out);
            }
            let (weight, bias) = classifier.parameters();
            tensors.insert(CLASSIFIER_WEIGHT.to_owned(), weight);
            tensors.insert(CLASSIFIER_BIAS.to_owned(), bias);
        }
        Weights::new(tensors).save(&weights_file, Kind::BFloat16)?;
        let tokenizer_file = config.output.join("tokenizer.json");
        std::fs::copy(&config.tokenizer, &tokenizer_file)
            .map_err(|source| Error::Write { path: tokenizer_file, source })?;
        write_json(&config.output.join("config.json"), &published_config(&self.t5_config))?;

        let saved = T5::load(&config.output, self.device)?;
        let steps = config.schedule.steps;
        let mut order = BatchOrder::new(&self.corpus.train, config, 0);
        let (mut epochs, mut target_tokens) = (0.0, 0);
        for _ in 0..steps * u64::from(config.optimizer.accumulate) {
            let (epoch, indices) = order.next(&self.corpus.train);
            epochs = epoch;
            target_tokens += indices.iter().map(|&i| self.corpus.train[i].target.len() as u64).sum::<u64>();
        }
        let report = TrainReport {
            config: config.clone(),
            parameters: self.parameters.iter().map(|(_, tensor)| tensor.numel() as i64).sum(),
            examples: self.corpus.train.len(),
            epochs,
            target_tokens,
            validation: self.validate(&saved)?,
            classifier: scores,
        };
        write_json(&config.output.join("training.json"), &report)?;
        Ok(report)
    }

    fn validate(&self, model: &T5) -> Result<Option<Validation>, Error> {
        if self.corpus.validation.is_empty() {
            return Ok(None);
        }
        let options = ValidationOptions {
            batch_size: self.config.validation.batch_size,
            max_tokens: self.config.data.max_target_tokens,
        };
        validate(model, &self.tokenizer, &self.corpus.validation, &options).map(Some)
    }

    fn collate(&self, examples: &[TokenPair], indices: &[usize]) -> Batch {
        let rows: Vec<&TokenPair> = indices.iter().map(|&i| &examples[i]).collect();
        let frame = FrameTokens { start: self.t5_config.start_token(), pad: self.t5_config.pad_token_id };
        collate(&rows, frame, self.device)
    }

    /// What is validated and published: the average of the parameters, if there is one.
    fn evaluation_parameters(&self) -> Weights {
        self.optimizer.evaluation_parameters(&self.parameters)
    }

    fn learning_rate(&self, step: u64) -> f64 {
        self.config.optimizer.learning_rate * learning_rate_factor(&self.config.schedule, step)
    }
}

/// The classifier sees the batches in an order of its own.
const CLASSIFIER_SEED: u64 = 0x6361_6c6d;

/// The sequence of batches of a run from a given step on.
struct BatchOrder {
    config: BatchConfig,
    epoch: u64,
    batches: Vec<Vec<usize>>,
    next: usize,
}

impl BatchOrder {
    /// The order after `step` steps, of `accumulate` batches each: epochs may differ by a batch in length, so they are replayed.
    fn new(examples: &[TokenPair], config: &TrainConfig, step: u64) -> Self {
        let mut next = (step * u64::from(config.optimizer.accumulate)) as usize;
        let config = BatchConfig { batch_tokens: config.data.batch_tokens, seed: config.seed };
        let mut epoch = 0;
        loop {
            let batches = epoch_batches(examples, &config, epoch);
            if next < batches.len() {
                return BatchOrder { config, epoch, batches, next };
            }
            next -= batches.len();
            epoch += 1;
        }
    }

    /// Fraction of epochs done after this batch, and the batch.
    fn next(&mut self, examples: &[TokenPair]) -> (f64, Vec<usize>) {
        if self.next == self.batches.len() {
            self.epoch += 1;
            self.batches = epoch_batches(examples, &self.config, self.epoch);
            self.next = 0;
        }
        self.next += 1;
        let epochs = self.epoch as f64 + self.next as f64 / self.batches.len() as f64;
        (epochs, std::mem::take(&mut self.batches[self.next - 1]))
    }
}

/// `config.json` with the keys by which transformers recognises the class.
fn published_config(config: &T5Config) -> serde_json::Value {
    let mut value = serde_json::json!({
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": true,
        "is_gated_act": config.feed_forward_proj.is_gated(),
        "dense_act_fn": "gelu_new",
        "dtype": "bfloat16",
    });
    if let (Some(value), Ok(serde_json::Value::Object(keys))) =
        (value.as_object_mut(), serde_json::to_value(config))
    {
        value.extend(keys);
    }
    value
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|source| Error::Json { path: path.to_owned(), source })?;
    std::fs::write(path, text + "\n").map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn create_dir(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|source| Error::Write { path: path.to_owned(), source })
}
