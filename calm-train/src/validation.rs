//! Losses and scores of held-out examples.

use std::fmt;

use calm_checkpoint::Tokenizer;
use calm_core::{Backbone, DecodeError, DecodeOptions, StaticDepth};
use calm_engine::batches::Batches;
use calm_engine::decoding::{decode_batches, read_batch};
use calm_metrics::Metric;
use calm_model::{Dropout, T5, TeacherForcing};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::Error;
use crate::batches::{FrameTokens, collate};
use crate::config::TrainConfig;
use crate::corpus::{Corpus, HeldOut};
use crate::objective::exit_nll;
use crate::tokens::TokenPair;

/// Losses and scores of all tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Mean over the tasks of the last exit's loss: what early stopping compares.
    pub loss: f64,
    /// One for each task with held-out examples.
    pub tasks: Vec<TaskScores>,
}

/// Losses and scores of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskScores {
    /// The task.
    pub name: String,
    /// What the scores are.
    pub metric: Metric,
    /// Held-out examples.
    pub examples: usize,
    /// Corpus score of greedy outputs with all layers, in 0..=100.
    pub score: f64,
    /// The same with the first k layers for all tokens, k from 1.
    pub exit_scores: Vec<f64>,
    /// Negative log-likelihood per target token at the last exit, in nats, with teacher forcing.
    pub loss: f64,
    /// The same at each exit.
    pub exit_losses: Vec<f64>,
}

impl fmt::Display for TaskScores {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exits: Vec<String> = self.exit_scores.iter().map(|score| format!("{score:.1}")).collect();
        let TaskScores { name, metric, score, loss, .. } = self;
        write!(formatter, "{name}: {metric} {score:.2}, by exit {}, loss {loss:.3}", exits.join(" "))
    }
}

/// How to decode.
#[derive(Debug, Clone, Copy)]
pub struct ValidationOptions {
    /// Rows decoded together.
    pub batch_size: usize,
    /// Longest output.
    pub max_tokens: usize,
}

impl ValidationOptions {
    /// Those of a run.
    pub fn new(config: &TrainConfig) -> Self {
        let (batch_size, max_tokens) = (config.validation.batch_size, config.data.max_target_tokens);
        ValidationOptions { batch_size, max_tokens }
    }
}

/// Decodes the held-out sources of all tasks at every depth and scores the texts. None if nothing is held
/// out.
///
/// # Errors
/// libtorch, the tokenizer or a metric failed.
pub fn validate(
    model: &T5,
    tokenizer: &Tokenizer,
    corpus: &Corpus,
    options: &ValidationOptions,
) -> Result<Option<Validation>, Error> {
    let scores = corpus.held_out().map(|task| validate_task(model, tokenizer, &task, options));
    let tasks = scores.collect::<Result<Vec<_>, Error>>()?;
    if tasks.is_empty() {
        return Ok(None);
    }
    let loss = tasks.iter().map(|task| task.loss).sum::<f64>() / tasks.len() as f64;
    Ok(Some(Validation { loss, tasks }))
}

fn validate_task(
    model: &T5,
    tokenizer: &Tokenizer,
    task: &HeldOut<'_>,
    options: &ValidationOptions,
) -> Result<TaskScores, Error> {
    let _no_grad = tch::no_grad_guard();
    let layers = model.shape().num_layers;
    let sources: Vec<Vec<u32>> = task.pairs.iter().map(|pair| pair.source.clone()).collect();
    let batches = Batches::new(&sources, options.batch_size);
    let decode_options = DecodeOptions::new(options.max_tokens);
    let mut outputs = vec![Vec::new(); layers];
    let mut nll = vec![0.0; layers];
    for (rows, sources) in batches.rows().zip(batches.of(&sources)) {
        let pairs: Vec<TokenPair> = rows.iter().map(|&row| task.pairs[row].clone()).collect();
        for (sum, loss) in nll.iter_mut().zip(exit_losses(model, &pairs)) {
            *sum += loss;
        }
        let batch = [read_batch(model, &sources).map_err(DecodeError::from)?];
        for (layers, outputs) in (1..).zip(&mut outputs) {
            for generation in decode_batches(&batch, &StaticDepth { layers }, &decode_options)? {
                outputs.push(tokenizer.decode(&generation.tokens)?);
            }
        }
    }
    let tokens: usize = task.pairs.iter().map(|pair| pair.target.len()).sum();
    let outputs: Vec<Vec<String>> =
        outputs.into_iter().map(|outputs| batches.in_input_order(outputs)).collect();
    let references: Vec<&[String]> = task.references.iter().map(Vec::as_slice).collect();
    let score = |outputs: &Vec<String>| Ok(task.metric.corpus_score(outputs, &references)?);
    let exit_scores = outputs.iter().map(score).collect::<Result<Vec<f64>, Error>>()?;
    let exit_losses: Vec<f64> = nll.iter().map(|sum| sum / tokens as f64).collect();
    Ok(TaskScores {
        name: task.name.to_owned(),
        metric: task.metric,
        examples: task.pairs.len(),
        score: exit_scores[layers - 1],
        exit_scores,
        loss: exit_losses[layers - 1],
        exit_losses,
    })
}

/// Sum over the target tokens of each exit's negative log-likelihood.
fn exit_losses(model: &T5, pairs: &[TokenPair]) -> Vec<f64> {
    let config = model.config();
    let frame = FrameTokens { start: config.start_token(), pad: config.pad_token_id };
    let batch = collate(pairs, frame).to_device(model.device());
    let states = model.decoder_states(&TeacherForcing {
        sources: &batch.sources,
        source_lengths: &batch.source_lengths,
        decoder_inputs: &batch.decoder_inputs,
        dropout: &Dropout::off(),
    });
    let nll = |state: &Tensor| {
        let inputs = model.head_input(state).flatten(0, 1).index_select(0, &batch.positions);
        exit_nll(&inputs, model.head(), &batch.targets).to_kind(Kind::Double).double_value(&[])
    };
    states.iter().map(nll).collect()
}
