//! How fast each policy decodes, measured in turns.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Instant;

use calm_checkpoint::{EngineKind, Model, WeightType};
use calm_core::{DecodeOptions, Full, Policy, PolicySpec, Token};
use calm_data::Example;
use calm_engine::batches::Batches;
use calm_engine::decoding::{decode_batches, read_batch};
use calm_engine::engine::{Engine, EngineOptions, SourceForm, encode_source};
use serde::{Deserialize, Serialize};

use super::table::{ComparisonRow, Promise};
use super::{ComparePlan, Comparison, LoadEngine};
use crate::config::Plan;
use crate::dataset::Dataset;

/// An engine with its type of weights, written such as `cpu-int8` or `libtorch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineChoice {
    /// What executes the model.
    pub kind: EngineKind,
    /// The type of weights; the checkpoint's own if there is none.
    pub weight_type: Option<WeightType>,
}

impl FromStr for EngineChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, weight_type) = match text.split_once('-') {
            Some((kind, weight_type)) => (kind, Some(weight_type)),
            None => (text, None),
        };
        let kind = kind.parse().map_err(|error: calm_names::UnknownName| error.to_string())?;
        let weight_type: Option<WeightType> = weight_type
            .map(str::parse)
            .transpose()
            .map_err(|error: calm_names::UnknownName| error.to_string())?;
        match (kind, weight_type) {
            (EngineKind::Libtorch, Some(_)) => Err("libtorch has f32 alone: write libtorch".to_owned()),
            _ => Ok(Self { kind, weight_type }),
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.kind)?;
        self.weight_type.map_or(Ok(()), |weight_type| write!(formatter, "-{weight_type}"))
    }
}

/// An engine and the rows of a batch.
pub(super) type Case = (String, usize);

/// A measured speed, a row of `speed.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SpeedRow {
    task: String,
    policy: PolicySpec,
    engine: String,
    batch_size: usize,
    /// Output tokens of one pass over the examples.
    tokens: usize,
    /// Seconds of the fastest pass, reading of the sources included.
    seconds: f64,
    /// Seconds of decoding alone in the pass that was fastest in these.
    decoder_seconds: f64,
}

/// How fast a policy decodes, in tokens per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Speed {
    /// Reading of the sources included.
    pub(super) whole: f64,
    /// The speed of decoding alone.
    pub(super) decoder: f64,
}

/// All measured speeds.
#[derive(Debug, Clone, Default)]
pub(super) struct Speeds {
    rows: Vec<SpeedRow>,
}

impl Speeds {
    /// The cases in the order that they were measured in.
    pub(super) fn cases(&self) -> Vec<Case> {
        let mut cases: Vec<Case> = Vec::new();
        for row in &self.rows {
            let case = (row.engine.clone(), row.batch_size);
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
        cases
    }

    /// The speed of a policy, if it was measured.
    pub(super) fn of(&self, task: &str, policy: PolicySpec, (engine, batch_size): &Case) -> Option<Speed> {
        let is_it = |row: &&SpeedRow| {
            row.task == task && row.policy == policy && row.engine == *engine && row.batch_size == *batch_size
        };
        self.rows.iter().find(is_it).map(|row| {
            let tokens = row.tokens as f64;
            Speed { whole: tokens / row.seconds, decoder: tokens / row.decoder_seconds }
        })
    }

    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = calm_files::read(path)?;
        let rows = csv::Reader::from_reader(&bytes[..]).into_deserialize().collect::<Result<_, _>>()?;
        Ok(Self { rows })
    }

    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        crate::summary::write_csv(path, &self.rows)
    }

    /// Measures all policies of all tasks, with one worker that has all threads of `options`.
    pub(super) fn measure(
        comparison: &Comparison,
        rows: &[ComparisonRow],
        tests: &[Dataset],
        options: &EngineOptions,
        load: LoadEngine<'_>,
    ) -> anyhow::Result<Self> {
        let threads = options.workers.max(1) * options.threads_per_worker.max(1);
        let one_worker = EngineOptions { workers: 1, threads_per_worker: threads, ..options.clone() };
        let chosen = comparison.compare.engines.iter().map(|&choice| {
            let EngineChoice { kind, weight_type } = choice;
            let device = options.device.clone().filter(|_| kind == EngineKind::Libtorch);
            (Some(choice), EngineOptions { kind: Some(kind), weight_type, device, ..one_worker.clone() })
        });
        let mut choices: Vec<(Option<EngineChoice>, EngineOptions)> = chosen.collect();
        if choices.is_empty() {
            choices.push((None, one_worker));
        }
        let mut speeds = Self::default();
        for (choice, options) in choices {
            for ((task, plan), test) in comparison.tasks.iter().zip(tests) {
                let engine = match load(&plan.model, &options) {
                    Ok(engine) => engine,
                    // A program without libtorch compares what it has.
                    Err(error) if choice.is_some_and(|choice| choice.kind == EngineKind::Libtorch) => {
                        calm_files::tell(format_args!("note: no speed of libtorch: {error:#}"));
                        break;
                    }
                    Err(error) => return Err(error),
                };
                let name = choice.map_or_else(|| engine.model().device(), |choice| choice.to_string());
                calm_files::tell(format_args!("speed of {task} on {name}"));
                let policies = distinct_policies(rows, task);
                let task = Task { name: task, plan, test, compare: &comparison.compare, engine: &engine };
                speeds.rows.extend(task.measure(&name, &policies)?);
            }
        }
        Ok(speeds)
    }
}

/// What a task decodes with, each policy once; the oracle's time means nothing.
fn distinct_policies(rows: &[ComparisonRow], task: &str) -> Vec<PolicySpec> {
    let mut policies = Vec::new();
    for row in rows.iter().filter(|row| row.task == task && row.promise != Promise::Bound) {
        if !policies.contains(&row.policy) {
            policies.push(row.policy);
        }
    }
    policies
}

/// One task on one engine.
struct Task<'a> {
    name: &'a str,
    plan: &'a Plan,
    test: &'a Dataset,
    compare: &'a ComparePlan,
    engine: &'a Engine,
}

impl Task<'_> {
    fn measure(&self, engine_name: &str, policies: &[PolicySpec]) -> anyhow::Result<Vec<SpeedRow>> {
        let sources = self.sources()?;
        let model = self.engine.model();
        let mut made: Vec<Box<dyn Policy>> = Vec::new();
        for policy in policies {
            made.push(policy.make(model)?);
        }
        let mut rows = Vec::new();
        for &batch_size in &self.compare.batch_sizes {
            let batches = Batches::new(&sources, batch_size);
            let batches = batches.of(&sources);
            // An engine's first calls allocate.
            self.pass(model, &batches[..1], &Full)?;
            let mut fastest = vec![Pass::default(); made.len()];
            for _ in 0..self.compare.rounds {
                for (policy, fastest) in made.iter().zip(&mut fastest) {
                    fastest.add(&self.pass(model, &batches, &**policy)?);
                }
            }
            rows.extend(policies.iter().zip(fastest).map(|(&policy, fastest)| SpeedRow {
                task: self.name.to_owned(),
                policy,
                engine: engine_name.to_owned(),
                batch_size,
                tokens: fastest.tokens,
                seconds: fastest.seconds,
                decoder_seconds: fastest.decoder_seconds,
            }));
        }
        Ok(rows)
    }

    /// The first test examples of the task.
    fn sources(&self) -> anyhow::Result<Vec<Vec<Token>>> {
        let codec = self.engine.text_codec()?;
        let examples = self.test.examples.iter().take(self.compare.examples);
        let limit = self.plan.max_source_tokens;
        let tokens = |example: &Example| {
            encode_source(codec, &example.source, SourceForm { chat: example.chat, limit })
        };
        examples.map(tokens).collect()
    }

    /// Reads and decodes all batches.
    fn pass(
        &self,
        model: &dyn Model,
        batches: &[Vec<&[Token]>],
        policy: &dyn Policy,
    ) -> anyhow::Result<Pass> {
        let options = DecodeOptions::new(self.plan.max_tokens);
        let mut pass = Pass { tokens: 0, seconds: 0.0, decoder_seconds: 0.0 };
        for sources in batches {
            let started = Instant::now();
            let batch = read_batch(model, sources)?;
            let is_read = started.elapsed();
            let generations = decode_batches(&[batch], policy, &options)?;
            let is_decoded = started.elapsed();
            pass.tokens += generations.iter().map(|generation| generation.tokens.len()).sum::<usize>();
            pass.seconds += is_decoded.as_secs_f64();
            pass.decoder_seconds += (is_decoded - is_read).as_secs_f64();
        }
        Ok(pass)
    }
}

/// What decoding all batches took.
#[derive(Debug, Clone, Copy)]
struct Pass {
    tokens: usize,
    seconds: f64,
    decoder_seconds: f64,
}

impl Default for Pass {
    /// Slower than any.
    fn default() -> Self {
        Self { tokens: 0, seconds: f64::INFINITY, decoder_seconds: f64::INFINITY }
    }
}

impl Pass {
    /// Keeps what was faster in each respect.
    fn add(&mut self, other: &Self) {
        self.tokens = other.tokens;
        self.seconds = self.seconds.min(other.seconds);
        self.decoder_seconds = self.decoder_seconds.min(other.decoder_seconds);
    }
}
