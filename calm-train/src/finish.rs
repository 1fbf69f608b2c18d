//! What a run leaves in its output folder: weights, classifier, tokenizer, configuration, report, learning
//! curves.

use std::collections::BTreeMap;
use std::sync::Arc;

use calm_checkpoint::{CLASSIFIER_BIAS, CLASSIFIER_WEIGHT, T5Config, Tokenizer};
use calm_model::{T5, Weights};
use serde::Serialize;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::batches::{Batch, BatchConfig, FrameTokens, collate, epoch_batches};
use crate::classifier::{ClassifierTraining, LayerF1};
use crate::config::{Precision, TrainConfig};
use crate::corpus::Corpus;
use crate::loader::{Loader, LoaderConfig};
use crate::progress::{LOG_EVERY, Progress};
use crate::validation::{Validation, ValidationOptions, validate};
use crate::{Error, checkpoint, draw_learning_curves};

/// The report of a finished run, which is next to the weights as `training.json`.
#[derive(Debug, Clone, Serialize)]
pub struct TrainReport {
    /// The configuration of the run.
    pub config: TrainConfig,
    /// Number of parameters of the network.
    pub parameters: i64,
    /// Number of training examples after the limits on length.
    pub examples: usize,
    /// The step of the weights, which is the last one, or the best one after early stopping.
    pub step: u64,
    /// Number of passes over the examples.
    pub epochs: f64,
    /// Number of target tokens learned from.
    pub target_tokens: u64,
    /// Losses and scores of the saved weights on the held-out examples, if there are any.
    pub validation: Option<Validation>,
    /// The exit classifier's scores at each layer, on the same examples with teacher forcing.
    ///
    /// There are none without held-out examples or classifier.
    pub classifier: Vec<LayerF1>,
}

/// A backbone whose training has ended.
pub(crate) struct Finished<'a> {
    pub config: &'a TrainConfig,
    pub device: Device,
    pub tokenizer: &'a Tokenizer,
    pub corpus: &'a Arc<Corpus>,
    pub t5_config: &'a T5Config,
    pub published_config: &'a Value,
    pub parameters: Weights,
    pub state: &'a checkpoint::RunState,
}

impl Finished<'_> {
    /// Trains the classifier on the weights as they are written, scores it, and writes everything.
    pub(crate) fn write(&self) -> Result<TrainReport, Error> {
        let config = self.config;
        let kind = match config.output_precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        };
        let rounded =
            tch::no_grad(|| self.parameters.map(|tensor| tensor.detach().to_kind(kind).to_kind(Kind::Float)));
        let model = T5::new(self.t5_config, &rounded)?;
        let mut tensors: BTreeMap<String, Tensor> =
            rounded.iter().map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect();
        let mut scores = Vec::new();
        if config.classifier.steps > 0 {
            let classifier = self.train_classifier(&model);
            let held_out = self.held_out_batches();
            if !held_out.is_empty() {
                scores = classifier.f1(&model, &held_out);
            }
            let (weight, bias) = classifier.parameters();
            tensors.insert(CLASSIFIER_WEIGHT.to_owned(), weight);
            tensors.insert(CLASSIFIER_BIAS.to_owned(), bias);
        }
        Weights::new(tensors).save(&config.output, kind, config.max_file_bytes)?;
        let tokenizer_file = config.output.join("tokenizer.json");
        let source = config.tokenizer_file();
        if source != tokenizer_file {
            calm_files::write(&tokenizer_file, calm_files::read(&source)?)?;
        }
        calm_files::write_json(&config.output.join("config.json"), self.published_config)?;

        let saved = T5::load(&config.output, self.device)?;
        let report = TrainReport {
            config: config.clone(),
            parameters: self.parameters.iter().map(|(_, tensor)| tensor.numel() as i64).sum(),
            examples: self.corpus.len(),
            step: self.state.step,
            epochs: self.state.epochs,
            target_tokens: self.state.target_tokens,
            validation: validate(&saved, self.tokenizer, self.corpus, &ValidationOptions::new(config))?,
            classifier: scores,
        };
        calm_files::write_json(&config.output.join("training.json"), &report)?;
        draw_learning_curves(&config.checkpoints.join("log.jsonl"), &config.output)?;
        Ok(report)
    }

    fn train_classifier(&self, model: &T5) -> ClassifierTraining {
        let config = &self.config.classifier;
        let mut classifier = ClassifierTraining::new(model, config);
        let mut progress = Progress::classifier(config.steps);
        let loader = LoaderConfig { batch: self.batch_config(), frame: self.frame(), device: self.device };
        let mut loader = Loader::start(self.corpus.clone(), loader, 0);
        for step in 1..=config.steps {
            let (_, batch) = loader.next_batch();
            let loss = classifier.step(model, &batch);
            progress.count(batch.target_tokens);
            if step.is_multiple_of(LOG_EVERY) {
                progress.show(step, loss.double_value(&[]));
            }
        }
        progress.finish();
        classifier
    }

    fn held_out_batches(&self) -> Vec<Batch> {
        let pairs: Vec<_> = self.corpus.held_out().flat_map(|task| task.pairs.iter()).collect();
        epoch_batches((0..pairs.len()).collect(), |i| pairs[i].length(), &self.batch_config(), 0)
            .into_iter()
            .map(|rows| {
                let rows: Vec<_> = rows.into_iter().map(|i| pairs[i].clone()).collect();
                collate(&rows, self.frame()).to_device(self.device)
            })
            .collect()
    }

    /// The grouping for the classifier, which sees the batches in an order of its own.
    fn batch_config(&self) -> BatchConfig {
        const CLASSIFIER_SEED: u64 = 0x6361_6c6d;
        let TrainConfig { seed, ref data, .. } = *self.config;
        BatchConfig { batch_tokens: data.batch_tokens, seed: seed ^ CLASSIFIER_SEED }
    }

    fn frame(&self) -> FrameTokens {
        FrameTokens { start: self.t5_config.start_token(), pad: self.t5_config.pad_token_id }
    }
}
