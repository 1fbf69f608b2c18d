//! Decoding what is missing.
//!
//! Workers take shards one after the other. A worker encodes the batches of its shard once and decodes them
//! with each setting that has no file yet. Batches are the same whoever decodes them, so results do not
//! depend on the workers.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use calm_checkpoint::Model;
use calm_core::profile::{self, Part, Profile};
use calm_core::{DecodeOptions, Full, Generation, Policy, PolicySpec, Token};
use calm_engine::batches::Batches;
use calm_engine::decoding::{decode_batches, read_batch};
use calm_engine::engine::{Engine, SourceForm, TextCodec, encode_source, missing_codec};
use calm_engine::text_stream::token_ends;
use calm_names::counted;

use crate::dataset::{Dataset, Shard, Split};
use crate::progress::Progress;
use crate::unit::{Common, Header, Record, Store, UnitKey, UnitState};

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

impl std::ops::Add for UnitCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { total: self.total + other.total, decoded: self.decoded + other.decoded }
    }
}

/// What the units of an engine have in common when it decodes like this.
pub fn common(
    engine: &Engine,
    max_tokens: usize,
    max_source_tokens: Option<usize>,
    batch_size: usize,
) -> Common {
    let (model, device) = (engine.model().fingerprint().to_owned(), engine.model().device());
    Common { model, device, max_tokens, max_source_tokens, batch_size }
}

/// One shard with the settings it lacks.
struct Job<'a> {
    dataset: &'a Dataset,
    shard: &'a Shard,
    missing: Vec<UnitKey>,
}

/// What becomes of files that are of no use because they are another run's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherRuns {
    /// They stay: that they are there is an error.
    Keep,
    /// They are replaced.
    Overwrite,
}

/// Decodes every unit of `work` that has no file, or one of no use.
///
/// # Errors
/// There are files that are to be kept, a setting does not fit the model, the engine fails, or a file cannot
/// be written. What was finished before stays.
pub fn decode_missing(
    engine: Engine,
    common: &Common,
    work: &[Work<'_>],
    store: &Store,
    other_runs: OtherRuns,
) -> anyhow::Result<UnitCounts> {
    let (jobs, counts) = find_jobs(common, work, store, other_runs)?;
    if let Some(key) = jobs.first().and_then(|job| job.missing.first()) {
        calm_files::check_output(&store.path(key), &[])?;
    }
    let Engine { mut models, codec } = engine;
    let codec = codec.ok_or_else(|| missing_codec(&*models[0]))?;
    models.truncate(jobs.len().max(1));
    let workers = models.len();
    let progress = Progress::new(counts.decoded);
    let next_job = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let first_error = Mutex::new(None);
    std::thread::scope(|scope| {
        for model in models {
            scope.spawn(|| {
                let worker = Worker { model, codec: &*codec, common, store, workers, progress: &progress };
                // libtorch's own failures, such as too little memory, come as panics.
                let result = catch_unwind(AssertUnwindSafe(|| {
                    worker.model.enter_thread();
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
fn find_jobs<'a>(
    common: &Common,
    work: &'a [Work<'_>],
    store: &Store,
    other_runs: OtherRuns,
) -> anyhow::Result<(Vec<Job<'a>>, UnitCounts)> {
    let mut jobs = Vec::new();
    let mut counts = UnitCounts::default();
    // Why units are decoded again, and how many for each reason.
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for Work { dataset, policies } in work {
        for shard in &dataset.shards {
            let mut missing = Vec::new();
            for &policy in policies {
                let key = UnitKey::new(common, dataset.split, shard, policy);
                match store.state(&key, &dataset.examples[shard.range.clone()]) {
                    UnitState::Finished => continue,
                    UnitState::OfAnotherRun(difference) if other_runs == OtherRuns::Keep => bail!(
                        "{} is of a finished run with another {difference}: choose another folder, or replace that run \
                         with --overwrite",
                        store.path(&key).display()
                    ),
                    UnitState::OfAnotherRun(difference) => {
                        *reasons.entry(format!("of a run with another {difference}")).or_insert(0) += 1;
                    }
                    UnitState::OfAnotherVersion(age) => {
                        *reasons.entry(format!("in the format of {age} version")).or_insert(0) += 1;
                    }
                    UnitState::Damaged(reason) => {
                        calm_files::tell(format_args!("note: decoded again: {reason}"))
                    }
                    UnitState::Missing => {}
                }
                missing.push(key);
            }
            counts.total += policies.len();
            counts.decoded += missing.len();
            if !missing.is_empty() {
                jobs.push(Job { dataset, shard, missing });
            }
        }
    }
    for (reason, units) in reasons {
        let units = counted(units, "unit");
        calm_files::tell(format_args!("note: decoded again: {units}, whose files are {reason}"));
    }
    Ok((jobs, counts))
}

struct Worker<'a> {
    model: Box<dyn Model>,
    codec: &'a dyn TextCodec,
    common: &'a Common,
    store: &'a Store,
    workers: usize,
    progress: &'a Progress,
}

impl Worker<'_> {
    fn run(&self, jobs: &[Job<'_>], next_job: &AtomicUsize, failed: &AtomicBool) -> anyhow::Result<()> {
        let mut is_warm = false;
        // A policy may read files of its measure.
        let mut policies: BTreeMap<String, Box<dyn Policy>> = BTreeMap::new();
        while let Some(job) = jobs.get(next_job.fetch_add(1, Ordering::Relaxed)) {
            let place = || format!("{} shard {}", job.dataset.split, job.shard.index);
            let sources = self.tokenize(job)?;
            let batches = Batches::new(&sources, self.common.batch_size);
            let of_batches = batches.of(&sources);
            if !is_warm {
                self.warm_up(&of_batches[0]).with_context(place)?;
                is_warm = true;
            }
            let read = |batch: &Vec<&[Token]>| read_batch(&*self.model, batch);
            let read = of_batches.iter().map(read).collect::<Result<Vec<_>, _>>().with_context(place)?;
            for key in &job.missing {
                if failed.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let place = || format!("{}, {}", place(), key.policy);
                let policy = match policies.entry(key.policy.to_string()) {
                    // A unit must not depend on which ones its worker has decoded before.
                    Entry::Occupied(mut made) if made.get().learns_from_outputs() => {
                        made.insert(key.policy.make(&*self.model).with_context(place)?);
                        made.into_mut()
                    }
                    Entry::Occupied(made) => made.into_mut(),
                    Entry::Vacant(missing) => {
                        missing.insert(key.policy.make(&*self.model).with_context(place)?)
                    }
                };
                let options = DecodeOptions::new(self.common.max_tokens);
                let (generations, profile) = profile::record(|| decode_batches(&read, &**policy, &options));
                let generations = generations.with_context(place)?;
                let encoder_seconds = read.iter().flat_map(|batch| vec![batch.seconds_per_row; batch.rows]);
                let results = batches.in_input_order(generations.into_iter().zip(encoder_seconds));
                self.write(job, key, &sources, results, parts(&profile))?;
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
        sources: &[Vec<Token>],
        results: Vec<(Generation, f64)>,
        parts: Vec<(Part, f64)>,
    ) -> anyhow::Result<()> {
        let examples = &job.dataset.examples[job.shard.range.clone()];
        let mut records = Vec::with_capacity(examples.len());
        for ((example, source), (generation, encoder_seconds)) in examples.iter().zip(sources).zip(results) {
            let source_tokens = source.len();
            let (example, text) = (example.id.clone(), self.codec.decode(&generation.tokens)?);
            // Reports show test examples token by token.
            let ends = match job.dataset.split {
                Split::Test => token_ends(self.codec, &generation.tokens, &text)?,
                Split::Calibration => Vec::new(),
            };
            records.push(Record { example, source_tokens, encoder_seconds, text, ends, generation });
        }
        let (shape, folder) = (self.model.shape().clone(), self.model.folder().map(Into::into));
        let header = Header { unit: key.clone(), shape, workers: self.workers, folder, parts };
        self.store.write(&header, &records)
    }

    fn tokenize(&self, job: &Job<'_>) -> anyhow::Result<Vec<Vec<Token>>> {
        let tokens = job.dataset.examples[job.shard.range.clone()].iter().map(|example| {
            let form = SourceForm { chat: example.chat, limit: self.common.max_source_tokens };
            encode_source(self.codec, &example.source, form)
                .with_context(|| format!("{} example {}", job.dataset.split, example.id))
        });
        tokens.collect()
    }

    /// An engine's first calls allocate and choose kernels; the full model, which comes first, would seem
    /// slow.
    fn warm_up(&self, first_batch: &[&[Token]]) -> anyhow::Result<()> {
        let first = [read_batch(&*self.model, first_batch)?];
        let options = DecodeOptions::new(self.common.max_tokens.min(4));
        decode_batches(&first, &Full, &options)?;
        Ok(())
    }
}

/// The seconds of each part that took any. What is in no part counts for the loop.
fn parts(profile: &Profile) -> Vec<(Part, f64)> {
    let parts = Part::ALL.iter().map(|&part| {
        let rest = if part == Part::Loop { profile.outside() } else { Duration::ZERO };
        (part, (profile.of(part).own + rest).as_secs_f64())
    });
    parts.filter(|(_, seconds)| *seconds > 0.0).collect()
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a worker panicked").lines().next().unwrap_or_default().to_owned()
}
