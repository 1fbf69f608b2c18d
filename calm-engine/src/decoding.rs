//! Reading batches and decoding them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use calm_checkpoint::{Model, source_seed};
use calm_core::{
    BeamOptions, DecodeError, DecodeOptions, EngineError, Filter, Generation, Policy, Prompt, Sampling,
    Token, beam_search, decode,
};

use crate::batches::Batches;

/// A batch that a model has read.
pub struct ReadBatch<'a> {
    /// To be decoded any number of times.
    pub prompt: Box<dyn Prompt + 'a>,
    /// Number of sources.
    pub rows: usize,
    /// Time of reading, divided by the rows.
    pub seconds_per_row: f64,
}

/// Has a model read one batch.
///
/// # Errors
/// The model knows a token of a source not, or the engine fails.
pub fn read_batch<'a>(model: &'a dyn Model, sources: &[&[Token]]) -> Result<ReadBatch<'a>, EngineError> {
    let started = Instant::now();
    let prompt = model.read(sources)?;
    model.synchronize();
    let rows = sources.len();
    let seconds_per_row = started.elapsed().as_secs_f64() / rows.max(1) as f64;
    Ok(ReadBatch { prompt, rows, seconds_per_row })
}

/// Decodes batches one after the other: generations in the order of the batches.
///
/// # Errors
/// The model cannot follow the policy, or the engine fails.
pub fn decode_batches(
    batches: &[ReadBatch<'_>],
    policy: &dyn Policy,
    options: &DecodeOptions,
) -> Result<Vec<Generation>, DecodeError> {
    let mut generations = Vec::new();
    for batch in batches {
        generations.extend(decode(&*batch.prompt, policy, options)?);
    }
    Ok(generations)
}

/// How tokens are drawn for any sources.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draws {
    /// The tokens that may be drawn.
    pub filter: Filter,
    /// With a source's tokens it decides what is drawn for it.
    pub seed: u64,
}

impl Draws {
    /// The draws for a batch of these sources.
    ///
    /// # Errors
    /// A number of the filter is out of its range.
    pub fn sampling(&self, sources: &[&[Token]]) -> Result<Sampling, DecodeError> {
        let seeds: Vec<u64> = sources.iter().map(|source| source_seed(self.seed, source)).collect();
        Ok(Sampling::new(self.filter, seeds)?)
    }
}

/// Reads one batch of sources and decodes it: generations in the order of the sources. Tokens are the best
/// ones, or drawn if `draws` says how.
///
/// # Errors
/// The model cannot follow the policy, or the engine fails.
pub fn decode_batch(
    model: &dyn Model,
    sources: &[&[Token]],
    policy: &dyn Policy,
    options: &DecodeOptions,
    draws: Option<Draws>,
) -> Result<Vec<Generation>, DecodeError> {
    let batch = read_batch(model, sources)?;
    let sampling = draws.map(|draws| draws.sampling(sources)).transpose()?;
    decode_batches(&[batch], policy, &DecodeOptions { sampling, ..options.clone() })
}

/// Decodes sources in batches of at most `batch_size`, side by side on all handles of a model: generations in
/// the order of the sources. Tokens are the best ones, or drawn if `draws` says how.
///
/// # Errors
/// The model cannot follow the policy, or the engine fails.
pub fn decode_sources(
    models: &mut [Box<dyn Model>],
    sources: &[Vec<Token>],
    batch_size: usize,
    policy: &dyn Policy,
    options: &DecodeOptions,
    draws: Option<Draws>,
) -> Result<Vec<Generation>, DecodeError> {
    // What learns from outputs sees them in order.
    let models = if policy.learns_from_outputs() { &mut models[..1] } else { models };
    map_batches(models, sources, batch_size, |model, sources| {
        decode_batch(model, sources, policy, options, draws)
    })
}

/// Searches the best output of sources with beams, in batches of at most `batch_size` hypotheses, or those of
/// one source, side by side on all handles of a model: generations in the order of the sources.
///
/// # Errors
/// There are no beams, or the engine fails.
pub fn beam_search_sources(
    models: &mut [Box<dyn Model>],
    sources: &[Vec<Token>],
    batch_size: usize,
    options: &BeamOptions,
) -> Result<Vec<Generation>, DecodeError> {
    let sources_per_batch = (batch_size / options.beams.max(1)).max(1);
    map_batches(models, sources, sources_per_batch, |model, sources| {
        let batch = read_batch(model, &options.rows(sources))?;
        beam_search(&*batch.prompt, options)
    })
}

/// Does something with batches of at most `batch_size` sources, side by side on all handles of a model: what
/// it gives for each source, in the order of the sources.
///
/// # Errors
/// The first one of a batch, in the order of the batches.
pub fn map_batches<T: Send, E: Send>(
    models: &mut [Box<dyn Model>],
    sources: &[Vec<Token>],
    batch_size: usize,
    of_batch: impl Fn(&dyn Model, &[&[Token]]) -> Result<Vec<T>, E> + Sync,
) -> Result<Vec<T>, E> {
    let batches = Batches::new(sources, batch_size);
    let of_batches = batches.of(sources);
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<Vec<T>, E>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for model in models.iter_mut().take(batches.len()) {
            let (next, results, of_batches, of_batch) = (&next, &results, &of_batches, &of_batch);
            scope.spawn(move || {
                model.enter_thread();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(sources) = of_batches.get(index) else { break };
                    let result = of_batch(&**model, sources);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    let of_batches: Vec<Vec<T>> = results.into_iter().map(|(_, result)| result).collect::<Result<_, _>>()?;
    Ok(batches.in_input_order(of_batches.into_iter().flatten()))
}
