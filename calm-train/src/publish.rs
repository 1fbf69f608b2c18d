//! What a run leaves in its output folder: weights, classifier, tokenizer, configuration, report, learning
//! curves.

use std::collections::BTreeMap;
use std::sync::Arc;

use calm_checkpoint::{CLASSIFIER_BIAS, CLASSIFIER_WEIGHT, HEADS_FILE, Model, T5Config, Tokenizer};
use calm_fit::reliability::Reliability;
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
    /// How far the measures `agreement` can be trusted at each layer, on a quarter of the examples that their
    /// maps were fitted to the rest of.
    pub confidence: Vec<Reliability>,
}

/// A backbone whose training has ended.
pub(crate) struct Finished<'a> {
    pub config: &'a TrainConfig,
    pub device: Device,
    pub tokenizer: &'a Tokenizer,
    pub corpus: &'a Arc<Corpus>,
    pub t5_config: &'a T5Config,
    pub published_config: &'a Value,
    pub published_generation_config: &'a Value,
    pub parameters: Weights,
    pub state: &'a checkpoint::RunState,
}

impl Finished<'_> {
    /// Writes the weights, with a classifier that is trained on them as they are written, and what they
    /// score.
    pub(crate) fn publish(&self) -> Result<TrainReport, Error> {
        let weights = self.rounded();
        let model = T5::new(self.t5_config, &weights)?;
        let trains_classifier = self.config.classifier.steps > 0;
        let classifier = trains_classifier.then(|| self.train_classifier(&model)).transpose()?;
        self.write_checkpoint(&weights, classifier.as_ref())?;
        let confidence = self.fit_confidence()?;
        let held_out = self.held_out_batches();
        let scores = match classifier {
            Some(classifier) if !held_out.is_empty() => classifier.f1(&model, &held_out),
            _ => Vec::new(),
        };
        let report = self.report(scores, confidence)?;
        calm_files::write_json(&self.config.output.join("training.json"), &report)?;
        draw_learning_curves(&self.config.checkpoints.join("log.jsonl"), &self.config.output)?;
        Ok(report)
    }

    /// The type of the published weights.
    fn output_kind(&self) -> Kind {
        match self.config.output_precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        }
    }

    /// The weights in f32, rounded as the file will have them.
    fn rounded(&self) -> Weights {
        let kind = self.output_kind();
        tch::no_grad(|| self.parameters.map(|tensor| tensor.detach().to_kind(kind).to_kind(Kind::Float)))
    }

    /// Writes weights, tokenizer and configuration.
    fn write_checkpoint(
        &self,
        weights: &Weights,
        classifier: Option<&ClassifierTraining>,
    ) -> Result<(), Error> {
        let config = self.config;
        // Exit heads of a model that was there are none of this one.
        let heads = config.output.join(HEADS_FILE);
        if heads.exists() {
            std::fs::remove_file(&heads).map_err(calm_files::Error::write(&heads))?;
        }
        let mut tensors: BTreeMap<String, Tensor> =
            weights.iter().map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect();
        if let Some(classifier) = classifier {
            let (weight, bias) = classifier.parameters();
            tensors.insert(CLASSIFIER_WEIGHT.to_owned(), weight);
            tensors.insert(CLASSIFIER_BIAS.to_owned(), bias);
        }
        Weights::new(tensors).save(&config.output, self.output_kind(), config.max_file_bytes)?;
        let tokenizer_file = config.output.join("tokenizer.json");
        let source = config.tokenizer_file();
        if source != tokenizer_file {
            calm_files::write(&tokenizer_file, calm_files::read(&source)?)?;
        }
        calm_files::write_json(&config.output.join("config.json"), self.published_config)?;
        let generation_config = config.output.join("generation_config.json");
        calm_files::write_json(&generation_config, self.published_generation_config)?;
        Ok(())
    }

    /// Scores the checkpoint as it was written.
    fn report(&self, classifier: Vec<LayerF1>, confidence: Vec<Reliability>) -> Result<TrainReport, Error> {
        let saved = T5::load(&self.config.output, self.device)?;
        let options = ValidationOptions::new(self.config);
        Ok(TrainReport {
            config: self.config.clone(),
            parameters: self.parameters.iter().map(|(_, tensor)| tensor.numel() as i64).sum(),
            examples: self.corpus.len(),
            step: self.state.step,
            epochs: self.state.epochs,
            target_tokens: self.state.target_tokens,
            validation: validate(&saved, self.tokenizer, self.corpus, &options)?,
            classifier,
            confidence,
        })
    }

    /// Fits the maps of the measures `agreement` and the mixtures of `beta` to the checkpoint as it was
    /// written, and writes them beside it.
    fn fit_confidence(&self) -> Result<Vec<Reliability>, Error> {
        let sources = self.corpus.some_sources(self.config.confidence.examples);
        // Fewer examples than these are a try of the program, not a model that anybody uses.
        if sources.len() < calm_fit::agreement::FEWEST_EXAMPLES || self.t5_config.decoder_layers() < 2 {
            return Ok(Vec::new());
        }
        let options = ValidationOptions::new(self.config);
        let mut models: [Box<dyn Model>; 1] = [Box::new(T5::load(&self.config.output, self.device)?)];
        let observations =
            calm_fit::observe(&mut models, &sources, options.batch_size, options.max_tokens, &[])?;
        let reliability = calm_fit::fit_beside(&self.config.output, &observations, &sources)?;
        calm_fit::reliability::draw(&reliability, &self.config.output).map_err(calm_fit::Error::from)?;
        Ok(reliability)
    }

    fn train_classifier(&self, model: &T5) -> Result<ClassifierTraining, Error> {
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
        match classifier.is_finite() {
            true => Ok(classifier),
            false => Err(Error::Classifier { learning_rate: config.learning_rate }),
        }
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
