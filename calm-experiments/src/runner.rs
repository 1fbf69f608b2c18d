//! Decoding what is missing.
//!
//! Workers take shards one after the other ([`crate::jobs`]). A worker encodes the batches of its shard once
//! and decodes them with each setting that has no file yet. Batches are the same whoever decodes them, so
//! results do not depend on the workers.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use calm_checkpoint::Model;
use calm_core::profile::{self, Part, Profile};
use calm_core::{DecodeOptions, Full, Generation, Policy, Token};
use calm_engine::batches::Batches;
use calm_engine::decoding::{ReadBatch, decode_batches, read_batch};
use calm_engine::engine::{Engine, SourceForm, TextCodec, encode_source, missing_codec};
use calm_engine::signals::{Endable, Interrupted};
use calm_engine::text_stream::token_ends;
use calm_engine::waiting::with_seconds_waited;
use calm_files::Progress;

use crate::dataset::Split;
use crate::jobs::{Job, Jobs, OtherRuns, UnitCounts, Work, find_jobs};
use crate::unit::{Common, Header, Record, Store, UnitKey};

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

/// What to decode, and where to.
pub struct Decoding<'a> {
    /// What the units have in common.
    pub common: &'a Common,
    /// The units.
    pub work: &'a [Work<'a>],
    /// The files of the units.
    pub store: &'a Store,
    /// What becomes of the files of other runs.
    pub other_runs: OtherRuns,
    /// Ids of the units that are decoded; all if there is nothing.
    pub only: Option<&'a BTreeSet<String>>,
}

/// Decodes every unit that has no file, or one of no use. Ctrl-C ends it after the units that are being
/// decoded.
///
/// # Errors
/// There are files that are to be kept, a setting does not fit the model, the engine fails, or a file cannot
/// be written; or [`Interrupted`]. What was finished before stays.
pub fn decode_missing(engine: &mut Engine, decoding: &Decoding<'_>) -> anyhow::Result<UnitCounts> {
    let Decoding { common, work, store, other_runs, only } = *decoding;
    let (jobs, [total, missing]) = find_jobs(common, work, store, (other_runs, only))?;
    if let Some(key) = jobs.first_unit() {
        calm_files::check_output(&store.path(&key), &[])?;
    }
    if missing < total {
        calm_files::tell(format_args!("{} of {total} units are there from before", total - missing));
    }
    let Engine { models, codec, .. } = engine;
    let codec = codec.as_deref().ok_or_else(|| missing_codec(&*models[0]))?;
    let workers = models.len().min(jobs.len().max(1));
    let progress = Progress::new("decoding", "units", Some(missing));
    let decoded = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let first_error = Mutex::new(None);
    let endable =
        Endable::announced("ending after the units that are being decoded; Ctrl-C again ends at once");
    std::thread::scope(|scope| {
        for model in models.iter_mut().take(workers) {
            scope.spawn(|| {
                let (endable, progress, failed, decoded) = (&endable, &progress, &failed, &decoded);
                let worker =
                    Worker { model, codec, common, store, workers, endable, progress, failed, decoded };
                // libtorch's own failures, such as too little memory, come as panics.
                let result = catch_unwind(AssertUnwindSafe(|| {
                    worker.model.enter_thread();
                    worker.run(&jobs)
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
        None if endable.is_told_to_end() => Err(Interrupted.into()),
        None => Ok(UnitCounts { total, decoded: decoded.into_inner() }),
    }
}

struct Worker<'a> {
    model: &'a mut Box<dyn Model>,
    codec: &'a dyn TextCodec,
    common: &'a Common,
    store: &'a Store,
    workers: usize,
    endable: &'a Endable,
    progress: &'a Progress,
    failed: &'a AtomicBool,
    decoded: &'a AtomicUsize,
}

/// The sources of a shard, read.
struct ReadShard<'a> {
    sources: &'a [Vec<Token>],
    batches: &'a Batches,
    read: Vec<ReadBatch<'a>>,
}

impl Worker<'_> {
    fn run(&self, jobs: &Jobs<'_>) -> anyhow::Result<()> {
        let mut is_warm = false;
        // A policy may read files of its measure.
        let mut policies: BTreeMap<String, Box<dyn Policy>> = BTreeMap::new();
        while let Some(mut job) = jobs.take() {
            let mut left = VecDeque::new();
            let mut next = self.next_unit(&mut job, &mut left)?;
            if next.is_some() {
                let shard_name = || place(&job);
                let sources = self.tokenize(&job)?;
                let batches = Batches::new(&sources, self.common.batch_size);
                let of_batches = batches.of(&sources);
                if !is_warm {
                    self.warm_up(&of_batches[0]).with_context(shard_name)?;
                    is_warm = true;
                }
                let read = |batch: &Vec<&[Token]>| read_batch(&**self.model, batch);
                let read =
                    of_batches.iter().map(read).collect::<Result<Vec<_>, _>>().with_context(shard_name)?;
                let shard = ReadShard { sources: &sources, batches: &batches, read };
                while let Some((key, _claim)) = next {
                    self.decode(&job, &key, &shard, &mut policies)
                        .with_context(|| format!("{}, {}", place(&job), key.policy))?;
                    next = self.next_unit(&mut job, &mut left)?;
                }
            }
            if !self.is_to_end() {
                jobs.give_back(job.with_left(left));
            }
        }
        Ok(())
    }

    /// The next unit of a job that is this worker's to decode.
    fn next_unit(
        &self,
        job: &mut Job<'_>,
        left: &mut VecDeque<UnitKey>,
    ) -> anyhow::Result<Option<(UnitKey, calm_files::Claim)>> {
        if self.is_to_end() { Ok(None) } else { job.claim_next(left, self.store, self.progress) }
    }

    fn is_to_end(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.endable.is_told_to_end()
    }

    fn decode(
        &self,
        job: &Job<'_>,
        key: &UnitKey,
        shard: &ReadShard<'_>,
        policies: &mut BTreeMap<String, Box<dyn Policy>>,
    ) -> anyhow::Result<()> {
        let policy = match policies.entry(key.policy.to_string()) {
            // A unit must not depend on which ones its worker has decoded before.
            Entry::Occupied(mut made) if made.get().learns_from_outputs() => {
                made.insert(key.policy.make(&**self.model)?);
                made.into_mut()
            }
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(missing) => missing.insert(key.policy.make(&**self.model)?),
        };
        let options = DecodeOptions::new(self.common.max_tokens);
        let decode = || profile::record(|| decode_batches(&shard.read, &**policy, &options));
        let ((generations, profile), waited) = with_seconds_waited(decode);
        let generations = generations?;
        let encoder_seconds = shard.read.iter().flat_map(|batch| vec![batch.seconds_per_row; batch.rows]);
        let results = shard.batches.in_input_order(generations.into_iter().zip(encoder_seconds));
        let header = Header {
            unit: key.clone(),
            shape: self.model.shape().clone(),
            workers: self.workers,
            folder: self.model.folder().map(Into::into),
            parts: parts(&profile),
            waited,
        };
        self.store.write(&header, &self.records(job, shard.sources, results)?)?;
        self.decoded.fetch_add(1, Ordering::Relaxed);
        self.progress.add(1);
        Ok(())
    }

    /// The records of the generations and encoding times of a shard's examples.
    fn records(
        &self,
        job: &Job<'_>,
        sources: &[Vec<Token>],
        results: Vec<(Generation, f64)>,
    ) -> anyhow::Result<Vec<Record>> {
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
        Ok(records)
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
        let first = [read_batch(&**self.model, first_batch)?];
        let options = DecodeOptions::new(self.common.max_tokens.min(4));
        decode_batches(&first, &Full, &options)?;
        Ok(())
    }
}

fn place(job: &Job<'_>) -> String {
    format!("{} shard {}", job.dataset.split, job.shard.index)
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
