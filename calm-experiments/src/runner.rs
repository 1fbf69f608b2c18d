//! Decoding what is missing.
//!
//! Workers take shards one after the other. A worker encodes the batches of its shard once and decodes them with each
//! setting that has no file yet. Batches are the same whoever decodes them, so results do not depend on the workers.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, anyhow};
use calm_core::{Backbone, DecodeOptions, Generation, PolicySpec, Propagation, Token};
use calm_core::{batch_by_length, cut_source, decode, in_input_order};

use crate::dataset::{Dataset, Shard};
use crate::progress::Progress;
use crate::unit::{Common, Header, Record, Store, UnitKey, UnitState};

/// Texts to tokens and back.
pub trait TextCodec {
    /// Tokens of a source, with whatever ends one.
    ///
    /// # Errors
    /// The text has no tokens.
    fn encode(&self, text: &str) -> anyhow::Result<Vec<Token>>;

    /// Text of an output, without special tokens.
    ///
    /// # Errors
    /// The tokens have no text.
    fn decode(&self, tokens: &[Token]) -> anyhow::Result<String>;
}

/// What decodes: one backbone for each worker.
pub struct Engine<B, C> {
    /// Handles on the same weights, at least one.
    pub backbones: Vec<B>,
    /// Shared by all workers.
    pub codec: C,
    /// Changes whenever weights or tokenizer do.
    pub fingerprint: String,
    /// What computes, with the type of its weights.
    pub device: String,
    /// Called first thing in each worker's thread.
    pub prepare_thread: fn(),
    /// Waits until the backbone's device has done what it was told, so that encoding can be timed.
    pub synchronize: fn(&B),
}

impl<B, C> Engine<B, C> {
    /// What its units have in common when it decodes like this.
    pub fn common(&self, max_tokens: usize, max_source_tokens: Option<usize>, batch_size: usize) -> Common {
        Common {
            model: self.fingerprint.clone(),
            device: self.device.clone(),
            max_tokens,
            max_source_tokens,
            batch_size,
        }
    }
}

/// A split with its settings.
pub struct Work<'a> {
    /// The examples.
    pub dataset: &'a Dataset,
    /// The settings to decode them with, each once.
    pub policies: Vec<PolicySpec>,
}

/// How many units a call of [`decode_missing`] found and made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct UnitCounts {
    /// Units of the run.
    pub total: usize,
    /// Decoded by this call; the others had their files before.
    pub decoded: usize,
}

/// One shard with the settings it lacks.
struct Job<'a> {
    dataset: &'a Dataset,
    shard: &'a Shard,
    missing: Vec<UnitKey>,
}

/// Decodes every unit of `work` that has no file, or one of no use.
///
/// # Errors
/// A setting does not fit the model, the engine fails, or a file cannot be written. What was finished before stays.
pub fn decode_missing<B, C>(
    engine: Engine<B, C>,
    common: &Common,
    work: &[Work<'_>],
    store: &Store,
) -> anyhow::Result<UnitCounts>
where
    B: Backbone + Send,
    C: TextCodec + Sync,
{
    let (jobs, counts) = find_jobs(common, work, store);
    let Engine { mut backbones, codec, prepare_thread, synchronize, .. } = engine;
    backbones.truncate(jobs.len().max(1));
    let workers = backbones.len();
    let progress = Progress::new(counts.decoded);
    let next_job = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let first_error = Mutex::new(None);
    std::thread::scope(|scope| {
        for backbone in backbones {
            scope.spawn(|| {
                let progress = &progress;
                let worker =
                    Worker { backbone, synchronize, codec: &codec, common, store, workers, progress };
                // libtorch's own failures, such as too little memory, come as panics.
                let result = catch_unwind(AssertUnwindSafe(|| {
                    prepare_thread();
                    worker.run(&jobs, &next_job, &failed)
                }));
                let result = result.unwrap_or_else(|panic| Err(anyhow!("{}", panic_message(&*panic))));
                if let Err(error) = result
                    && !failed.swap(true, Ordering::Relaxed)
                {
                    *first_error.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
                }
            });
        }
    });
    progress.finish();
    match first_error.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        Some(error) => Err(error),
        None => Ok(counts),
    }
}

/// The shards that lack something, in order.
fn find_jobs<'a>(common: &Common, work: &'a [Work<'_>], store: &Store) -> (Vec<Job<'a>>, UnitCounts) {
    let mut jobs = Vec::new();
    let mut counts = UnitCounts::default();
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    for Work { dataset, policies } in work {
        for shard in &dataset.shards {
            let mut missing = Vec::new();
            for &policy in policies {
                let key = UnitKey::new(common, dataset.split, shard, policy);
                let state = store.state(&key);
                match &state {
                    UnitState::OfAnotherRun(difference) => *others.entry(*difference).or_insert(0) += 1,
                    UnitState::Damaged(reason) => eprintln!("note: decoded again: {reason}"),
                    UnitState::Missing | UnitState::Finished => {}
                }
                if state != UnitState::Finished {
                    missing.push(key);
                }
            }
            counts.total += policies.len();
            counts.decoded += missing.len();
            if !missing.is_empty() {
                jobs.push(Job { dataset, shard, missing });
            }
        }
    }
    for (difference, units) in others {
        eprintln!(
            "note: {units} units are decoded again, because their {difference} differs from the files'"
        );
    }
    (jobs, counts)
}

struct Worker<'a, B, C> {
    backbone: B,
    synchronize: fn(&B),
    codec: &'a C,
    common: &'a Common,
    store: &'a Store,
    workers: usize,
    progress: &'a Progress,
}

/// A batch of a shard with its encoder output.
struct Batch<E> {
    rows: usize,
    encoded: E,
    seconds_per_row: f64,
}

impl<B: Backbone, C: TextCodec> Worker<'_, B, C> {
    fn run(&self, jobs: &[Job<'_>], next_job: &AtomicUsize, failed: &AtomicBool) -> anyhow::Result<()> {
        let mut is_warm = false;
        while let Some(job) = jobs.get(next_job.fetch_add(1, Ordering::Relaxed)) {
            let place = || format!("{} shard {}", job.dataset.split, job.shard.index);
            let sources = self.tokenize(job)?;
            let lengths: Vec<usize> = sources.iter().map(Vec::len).collect();
            let batches = batch_by_length(&lengths, self.common.batch_size);
            if !is_warm {
                self.warm_up(&sources, &batches).with_context(place)?;
                is_warm = true;
            }
            let encoded = self.encode(&sources, &batches).with_context(place)?;
            for key in &job.missing {
                if failed.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let generations = self
                    .decode(key.policy, &encoded, self.common.max_tokens)
                    .with_context(|| format!("{}, {}", place(), key.policy))?;
                let encoder_seconds =
                    encoded.iter().flat_map(|batch| vec![batch.seconds_per_row; batch.rows]);
                let results = in_input_order(&batches, generations.into_iter().zip(encoder_seconds));
                self.write(job, key, &lengths, results)?;
                self.progress.unit_done();
            }
        }
        Ok(())
    }

    /// Writes the unit of the generations and encoding times of a shard's examples.
    fn write(
        &self,
        job: &Job<'_>,
        key: &UnitKey,
        source_lengths: &[usize],
        results: Vec<(Generation, f64)>,
    ) -> anyhow::Result<()> {
        let examples = &job.dataset.examples[job.shard.range.clone()];
        let mut records = Vec::with_capacity(examples.len());
        for ((example, &source_tokens), (generation, encoder_seconds)) in
            examples.iter().zip(source_lengths).zip(results)
        {
            let (example, text) = (example.id.clone(), self.codec.decode(&generation.tokens)?);
            records.push(Record { example, source_tokens, encoder_seconds, text, generation });
        }
        let shape = self.backbone.shape().clone();
        self.store.write(&Header { unit: key.clone(), shape, workers: self.workers }, &records)
    }

    fn tokenize(&self, job: &Job<'_>) -> anyhow::Result<Vec<Vec<Token>>> {
        let tokens = job.dataset.examples[job.shard.range.clone()].iter().map(|example| {
            let mut tokens = self
                .codec
                .encode(&example.source)
                .with_context(|| format!("{} example {}", job.dataset.split, example.id))?;
            if let Some(limit) = self.common.max_source_tokens {
                cut_source(&mut tokens, limit);
            }
            Ok(tokens)
        });
        tokens.collect()
    }

    /// An engine's first calls allocate and choose kernels; the full model, which comes first, would seem slow.
    fn warm_up(&self, sources: &[Vec<Token>], batches: &[Vec<usize>]) -> anyhow::Result<()> {
        let first = self.encode(sources, &batches[..1])?;
        self.decode(PolicySpec::Full, &first, self.common.max_tokens.min(4)).map(|_| ())
    }

    fn encode(
        &self,
        sources: &[Vec<Token>],
        batches: &[Vec<usize>],
    ) -> anyhow::Result<Vec<Batch<B::Encoded>>> {
        let encode = |batch: &Vec<usize>| {
            let rows: Vec<&[Token]> = batch.iter().map(|&index| sources[index].as_slice()).collect();
            let started = Instant::now();
            let encoded = self.backbone.encode(&rows)?;
            (self.synchronize)(&self.backbone);
            let seconds_per_row = started.elapsed().as_secs_f64() / rows.len() as f64;
            Ok(Batch { rows: rows.len(), encoded, seconds_per_row })
        };
        batches.iter().map(encode).collect()
    }

    /// Generations in the order of the batches.
    fn decode(
        &self,
        policy: PolicySpec,
        batches: &[Batch<B::Encoded>],
        max_tokens: usize,
    ) -> anyhow::Result<Vec<Generation>> {
        let policy = policy.resolve(&self.backbone)?;
        let options = DecodeOptions { max_tokens, propagation: Propagation::Lazy };
        let mut generations = Vec::new();
        for batch in batches {
            generations.extend(decode(&self.backbone, &batch.encoded, batch.rows, &policy, &options)?);
        }
        Ok(generations)
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a worker panicked").lines().next().unwrap_or_default().to_owned()
}
