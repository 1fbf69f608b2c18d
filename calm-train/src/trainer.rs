//! Runs a training from configuration to finished checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use calm_checkpoint::{T5Config, Tokenizer};
use calm_model::{T5, Weights};
use tch::{Device, Kind, Tensor};

use crate::batches::{Batch, BatchConfig, FrameTokens};
use crate::checkpoint::{Checkpoint, RunState, Slot};
use crate::config::TrainConfig;
use crate::corpus::Corpus;
use crate::initial_weights::InitialWeights;
use crate::loader::{Loader, LoaderConfig};
use crate::loss_watch::LossWatch;
use crate::optimizer::Optimizer;
use crate::output::Output;
use crate::parameters::Gradients;
use crate::progress::{LOG_EVERY, Progress, StepRecord};
use crate::publish::{Finished, TrainReport};
use crate::schedule::{Pace, ScheduleConfig, learning_rate_factor};
use crate::step::{BatchGradient, StepConfig, batch_gradient};
use crate::validation::{ValidationOptions, validate};
use crate::{Error, MadeWith, checkpoint, preflight, progress};

/// Name that the loss sums since the last line of the log have in a checkpoint.
const LOSS_SUMS: &str = "log.nll";
const LOSS_TOKENS: &str = "log.tokens";

/// How to run: the options that are not part of a run's configuration.
#[derive(Debug, Clone, Copy)]
pub struct TrainOptions {
    /// The device to compute on.
    pub device: Device,
    /// Time after which the run comes to the end of its schedule, in fewer steps than configured if need be.
    ///
    /// Classifier and scores take additional time.
    pub time_limit: Option<Duration>,
    /// Time after which the run stops with a checkpoint, so that the next call continues it.
    pub pause_after: Option<Duration>,
    /// Whether to replace a model in the output folder that this run has not written.
    pub overwrite: bool,
}

/// How a call of [`train`] ended.
#[derive(Debug)]
pub enum Trained {
    /// The model is in the output folder.
    Finished(Box<TrainReport>),
    /// The time is over; the checkpoint is that of this step.
    Paused {
        /// Number of steps done.
        step: u64,
    },
}

/// Trains from the last checkpoint, or from the start, and writes the finished model to `config.output`.
///
/// # Errors
/// Fails if input is missing or unusable, if a file cannot be written, if another process trains with the
/// same checkpoints, if the output folder holds another model, or if the loss jumps or stops being a number.
pub fn train(config: &TrainConfig, options: &TrainOptions) -> Result<Trained, Error> {
    let tokenizer = load_tokenizer(config)?;
    preflight::check_folders(config)?;
    create_dir(&config.checkpoints)?;
    let _lock = checkpoint::lock(&config.checkpoints)?;
    let output = Output::new(config, options.overwrite)?;
    let start = InitialWeights::new(config, &tokenizer, options.device)?;
    preflight::check_network(config, &start.t5_config)?;
    let corpus = open_corpus(config, &tokenizer)?;
    output.create()?;
    let mut run = Run::new(config, options, tokenizer, corpus, start)?;
    if run.train_backbone()? {
        Ok(Trained::Finished(Box::new(run.finish(&output)?)))
    } else {
        Ok(Trained::Paused { step: run.state.step })
    }
}

/// Tokenises the data of a run into `config.checkpoints` and returns the number of training examples.
///
/// With these files the run does not need the data any more, so that they can be carried to a machine with a
/// GPU.
///
/// # Errors
/// Fails if input is missing or unusable, or if a file cannot be written.
pub fn prepare(config: &TrainConfig) -> Result<usize, Error> {
    let tokenizer = load_tokenizer(config)?;
    preflight::check_folders(config)?;
    create_dir(&config.checkpoints)?;
    let _lock = checkpoint::lock(&config.checkpoints)?;
    Ok(open_corpus(config, &tokenizer)?.len())
}

fn open_corpus(config: &TrainConfig, tokenizer: &Tokenizer) -> Result<Arc<Corpus>, Error> {
    let corpus = Corpus::open(config, tokenizer)?;
    preflight::unknown_tokens(&corpus, tokenizer).iter().for_each(progress::note);
    Ok(Arc::new(corpus))
}

/// The tokenizer of a run, which ends texts as the network does or will do.
fn load_tokenizer(config: &TrainConfig) -> Result<Tokenizer, Error> {
    let tokenizer = Tokenizer::load(&config.tokenizer_file())?;
    Ok(match &config.init {
        Some(dir) => tokenizer.for_model(&T5Config::load(&dir.join("config.json"))?)?,
        None => tokenizer.for_new_model()?,
    })
}

struct Run<'a> {
    config: &'a TrainConfig,
    options: &'a TrainOptions,
    tokenizer: Tokenizer,
    corpus: Arc<Corpus>,
    start: InitialWeights,
    optimizer: Optimizer,
    state: RunState,
    /// The schedule of the configuration, or as much of it as there is time for.
    schedule: ScheduleConfig,
    losses: LossSums,
    /// The step of the last checkpoint.
    checkpointed: Option<u64>,
}

/// The negative log-likelihoods of all steps since the last line of the log.
struct LossSums {
    /// The sums, on the device, so that nothing waits for them: `[exits]`
    nll: Tensor,
    /// Number of target tokens that each exit was computed for.
    tokens: Vec<f32>,
}

impl<'a> Run<'a> {
    fn new(
        config: &'a TrainConfig,
        options: &'a TrainOptions,
        tokenizer: Tokenizer,
        corpus: Arc<Corpus>,
        start: InitialWeights,
    ) -> Result<Self, Error> {
        let optimizer = Optimizer::new(&config.optimizer, &start.parameters);
        let losses = LossSums::new(start.t5_config.decoder_layers(), options.device);
        let data = format!("{} in batches of {} tokens", corpus.fingerprint(), config.data.batch_tokens);
        let made_with = Some(MadeWith::new(config, start.init.clone())?);
        let state = RunState { seed: config.seed, data, made_with, ..RunState::default() };
        let (schedule, checkpointed) = (config.schedule, None);
        let mut run = Run {
            config,
            options,
            tokenizer,
            corpus,
            start,
            optimizer,
            state,
            schedule,
            losses,
            checkpointed,
        };
        run.restore()?;
        Ok(run)
    }

    /// Trains until the end of the schedule; returns false if `pause_after` stopped the run.
    fn train_backbone(&mut self) -> Result<bool, Error> {
        let config = self.config;
        let started = Instant::now();
        let mut pace = self.options.time_limit.map(|limit| Pace::new(config.schedule, limit));
        let mut progress = Progress::new(&config.checkpoints, config.schedule.steps, self.state.step)?;
        let mut watch = LossWatch::new(config.loss_spike);
        let accumulate = u64::from(config.optimizer.accumulate);
        let mut loader =
            Loader::start(self.corpus.clone(), self.loader_config(), self.state.step * accumulate);
        while self.state.step < self.schedule.steps && !self.is_stopped_early() {
            let mut batches = Vec::new();
            for _ in 0..accumulate {
                let (epochs, batch) = loader.next_batch();
                self.state.epochs = epochs;
                batches.push(batch);
            }
            self.state.step += 1;
            let step = self.state.step;
            let tokens = batches.iter().map(|batch| batch.target_tokens).sum::<usize>();
            let norm = self.step(&batches, tokens)?;
            self.state.target_tokens += tokens as u64;
            progress.count(tokens);

            let is_over = |limit: Option<Duration>| limit.is_some_and(|limit| started.elapsed() >= limit);
            if is_over(self.options.time_limit) {
                self.schedule.steps = step;
            }
            let pauses = is_over(self.options.pause_after);
            let ends = step >= self.schedule.steps || pauses;
            let logged = step.is_multiple_of(LOG_EVERY) || ends;
            let saved = step.is_multiple_of(config.checkpoint_every) || ends;
            if logged || saved {
                let exit_losses = self.losses.means()?;
                let loss = exit_losses.last().copied().flatten().unwrap_or(f64::NAN);
                let gradient_norm = norm.double_value(&[]);
                if !(loss.is_finite() && gradient_norm.is_finite()) {
                    let checkpoint = self.checkpointed;
                    return Err(Error::Diverged { loss, step, gradient_norm, checkpoint });
                }
                if logged {
                    if let Some(mean) = watch.exceeded(loss) {
                        return Err(Error::Spike { loss, mean, step, checkpoint: self.checkpointed });
                    }
                    self.losses.clear();
                    let (epoch, learning_rate) = (self.state.epochs, self.learning_rate());
                    let record = StepRecord {
                        step,
                        epoch,
                        loss,
                        exit_losses,
                        learning_rate,
                        gradient_norm,
                        data_wait: 0.0,
                    };
                    progress.record(record, loader.take_waited())?;
                    if let Some(pace) = pace.as_mut().filter(|_| !ends) {
                        self.schedule = pace.schedule(step, started.elapsed());
                        progress.set_steps(self.schedule.steps);
                    }
                }
            }
            let every = config.validation.every;
            if every > 0 && step.is_multiple_of(every) && step < self.schedule.steps {
                self.validate(&mut progress)?;
            }
            if saved || self.is_stopped_early() {
                self.save(Slot::Newest, self.full_state())?;
                self.checkpointed = Some(step);
            }
            if pauses && step < self.schedule.steps {
                return Ok(false);
            }
        }
        progress.finish();
        Ok(true)
    }

    /// Takes one step on the mean loss over the `tokens` target tokens of all batches together.
    ///
    /// Returns the gradient's norm, on the device.
    fn step(&mut self, batches: &[Batch], tokens: usize) -> Result<Tensor, Error> {
        let step = self.state.step;
        tch::manual_seed((self.config.seed.wrapping_mul(1_000_003).wrapping_add(step)) as i64);
        let config = StepConfig {
            t5_config: &self.start.t5_config,
            precision: self.config.precision,
            objective: &self.config.objective,
            seed: self.config.seed,
        };
        // Each batch samples exits of its own, which makes the better sample.
        let mut sum: Option<Gradients> = None;
        for (draw, batch) in ((step - 1) * batches.len() as u64 + 1..).zip(batches) {
            let BatchGradient { layers, nll, gradients } =
                batch_gradient(&config, &self.start.parameters, batch, draw, tokens)?;
            self.losses.add(&layers, &nll, batch.target_tokens);
            match &mut sum {
                Some(sum) => sum.add(gradients),
                None => sum = Some(gradients),
            }
        }
        let gradients = sum.expect("a step has at least one batch");
        Ok(self.optimizer.step(&self.start.parameters, &gradients, self.learning_rate()))
    }

    fn validate(&mut self, progress: &mut Progress) -> Result<(), Error> {
        let parameters = self.optimizer.evaluation_parameters(&self.start.parameters);
        let model = T5::new(&self.start.t5_config, &parameters)?;
        let options = ValidationOptions::new(self.config);
        let Some(validation) = validate(&model, &self.tokenizer, &self.corpus, &options)? else {
            return Ok(());
        };
        progress.validation(self.state.step, &validation)?;
        if self.state.best_loss.is_none_or(|best| validation.loss < best) {
            self.state.best_loss = Some(validation.loss);
            self.state.validations_since_best = 0;
            if self.config.validation.patience > 0 {
                self.save(Slot::Best, named(&parameters).collect())?;
            }
        } else {
            self.state.validations_since_best += 1;
        }
        Ok(())
    }

    fn is_stopped_early(&self) -> bool {
        let patience = self.config.validation.patience;
        patience > 0 && self.state.validations_since_best >= patience
    }

    fn finish(&mut self, output: &Output<'_>) -> Result<TrainReport, Error> {
        let mut parameters = self.optimizer.evaluation_parameters(&self.start.parameters);
        let mut state = self.state.clone();
        if self.is_stopped_early()
            && let Some(mut best) = checkpoint::load_newest(&self.config.checkpoints, Slot::Best)?
        {
            let failed = |reason| Error::OtherRun { path: best.path, reason };
            self.start.parameters.fill(&mut best.tensors).map_err(failed)?;
            parameters = self.start.parameters.weights();
            state = best.state;
        }
        let finished = Finished {
            config: self.config,
            device: self.options.device,
            tokenizer: &self.tokenizer,
            corpus: &self.corpus,
            t5_config: &self.start.t5_config,
            published_config: &self.start.published_config,
            published_generation_config: &self.start.published_generation_config,
            parameters,
            state: &state,
        };
        output.publish(|| finished.publish())
    }

    /// All tensors that later steps depend on.
    fn full_state(&self) -> BTreeMap<String, Tensor> {
        let tokens = Tensor::from_slice(&self.losses.tokens);
        let losses = [(LOSS_SUMS, self.losses.nll.shallow_clone()), (LOSS_TOKENS, tokens)];
        let losses = losses.map(|(name, tensor)| (name.to_owned(), tensor));
        let parameters = &self.start.parameters;
        named(&parameters.weights()).chain(self.optimizer.state(parameters)).chain(losses).collect()
    }

    /// Writes a checkpoint, which replaces the last one only if all its numbers are finite.
    fn save(&self, slot: Slot, tensors: BTreeMap<String, Tensor>) -> Result<(), Error> {
        if let Some(tensor) = checkpoint::not_finite(&tensors) {
            let (tensor, step, checkpoint) = (tensor.to_owned(), self.state.step, self.checkpointed);
            return Err(Error::NotFinite { tensor, step, checkpoint });
        }
        let (dir, size) = (&self.config.checkpoints, self.config.max_file_bytes);
        checkpoint::save(dir, slot, &self.state, tensors, size)
    }

    /// Restores the newest usable checkpoint, if there is one, and says so.
    fn restore(&mut self) -> Result<(), Error> {
        let found = checkpoint::load_newest(&self.config.checkpoints, Slot::Newest)?;
        let Some(Checkpoint { path, mut state, mut tensors, damaged }) = found else { return Ok(()) };
        let other = |reason: String| Error::OtherRun { path: path.clone(), reason };
        if state.seed != self.state.seed {
            return Err(other(format!("its seed is {}, not {}", state.seed, self.state.seed)));
        }
        if state.data != self.state.data {
            return Err(other("it was trained on other data, or in batches of another size".to_owned()));
        }
        let steps = self.config.schedule.steps;
        if state.step > steps {
            return Err(other(format!("it is at step {}, and schedule.steps is {steps}", state.step)));
        }
        let parameters = &self.start.parameters;
        parameters.fill(&mut tensors).map_err(other)?;
        let restored = self.optimizer.restore(parameters, &mut tensors, state.step);
        restored.map_err(|error| other(error.to_string()))?;
        let losses = [LOSS_SUMS, LOSS_TOKENS].map(|name| (name, tensors.remove(name)));
        if let Some(name) = tensors.keys().next() {
            return Err(other(format!("it has a tensor {name}")));
        }
        let [nll, tokens] = losses.map(|(name, tensor)| {
            let tensor = tensor.filter(|tensor| tensor.size() == self.losses.nll.size());
            tensor.ok_or_else(|| other(format!("{name} does not fit")))
        });
        let (nll, tokens) = (nll?, tokens?);
        let made_with = self.state.made_with.take();
        let changes = match (&state.made_with, &made_with) {
            (Some(before), Some(now)) => before.changes(now).map_err(other)?,
            _ => Vec::new(),
        };
        self.losses = LossSums {
            nll: nll.to_device(self.options.device),
            tokens: Vec::try_from(tokens.to_kind(Kind::Float))?,
        };
        damaged.iter().for_each(progress::note);
        progress::note(format!("the run goes on from step {} of {steps}, {}", state.step, path.display()));
        changes.iter().for_each(progress::note);
        state.made_with = made_with;
        self.checkpointed = Some(state.step);
        self.state = state;
        self.forget_lost_best()
    }

    /// Begins to look for the best validation anew if the weights of the best one so far are gone.
    ///
    /// They are not kept without patience either.
    fn forget_lost_best(&mut self) -> Result<(), Error> {
        let patience = self.config.validation.patience;
        if patience == 0 || self.state.best_loss.is_none() {
            return Ok(());
        }
        let best = checkpoint::load_newest(&self.config.checkpoints, Slot::Best)?;
        if best.is_none() {
            progress::note("the weights of the best validation so far are not there: later ones alone count");
            (self.state.best_loss, self.state.validations_since_best) = (None, 0);
        }
        Ok(())
    }

    fn loader_config(&self) -> LoaderConfig {
        let t5_config = &self.start.t5_config;
        LoaderConfig {
            batch: BatchConfig { batch_tokens: self.config.data.batch_tokens, seed: self.config.seed },
            frame: FrameTokens { start: t5_config.start_token(), pad: t5_config.pad_token_id },
            device: self.options.device,
        }
    }

    fn learning_rate(&self) -> f64 {
        self.config.optimizer.learning_rate * learning_rate_factor(&self.schedule, self.state.step)
    }
}

impl LossSums {
    fn new(exits: i64, device: Device) -> Self {
        LossSums { nll: Tensor::zeros([exits], (Kind::Float, device)), tokens: vec![0.0; exits as usize] }
    }

    /// Adds the sums of a batch of `tokens` target tokens: `nll` is `[layers.len()]`.
    fn add(&mut self, layers: &[usize], nll: &Tensor, tokens: usize) {
        for (&layer, nll) in layers.iter().zip(nll.unbind(0)) {
            let mut sum = self.nll.get(layer as i64 - 1);
            sum += nll;
            self.tokens[layer - 1] += tokens as f32;
        }
    }

    /// Computes the mean per token of each exit that was computed. Waits for the device.
    fn means(&self) -> Result<Vec<Option<f64>>, Error> {
        let means = Vec::<f32>::try_from(&self.nll)?.into_iter().zip(&self.tokens);
        let mean = |(nll, &tokens): (f32, &f32)| (tokens > 0.0).then(|| f64::from(nll) / f64::from(tokens));
        Ok(means.map(mean).collect())
    }

    fn clear(&mut self) {
        let _ = self.nll.zero_();
        self.tokens.fill(0.0);
    }
}

fn named(weights: &Weights) -> impl Iterator<Item = (String, Tensor)> {
    weights.iter().map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone()))
}

fn create_dir(path: &std::path::Path) -> Result<(), Error> {
    Ok(std::fs::create_dir_all(path).map_err(calm_files::Error::write(path))?)
}
