//! The decoding loop: each token of each row leaves the decoder as soon as its policy allows.

use std::ops::ControlFlow;
use std::time::Instant;

use crate::backbone::{Entry, Prompt, Token};
use crate::decoder::Decoder;
use crate::error::{DecodeError, PolicyError};
use crate::generation::Generation;
use crate::policy::Policy;
use crate::profile::{self, Part};
use crate::sampling::Sampling;

/// When the K/V of layers that a token skipped are computed. The outputs are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Propagation {
    /// When a later token of the row first reaches the layer, many at once, and never if none does.
    #[default]
    Lazy,
    /// In the step in which the token left, as the paper describes it.
    Eager,
}

/// How to decode, whatever the policy.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodeOptions {
    /// Longest output in tokens; also N of the decaying threshold.
    pub max_tokens: usize,
    /// When the K/V of skipped layers are computed.
    pub propagation: Propagation,
    /// Whether outputs go on to their longest after an end-of-sequence token, so that all measure the same
    /// work.
    pub ignore_eos: bool,
    /// How tokens are drawn; `None` takes the best ones.
    pub sampling: Option<Sampling>,
}

impl DecodeOptions {
    /// The usual way of decoding at most `max_tokens`.
    pub fn new(max_tokens: usize) -> Self {
        Self { max_tokens, propagation: Propagation::Lazy, ignore_eos: false, sampling: None }
    }
}

/// Decodes all rows of `prompt`, each until an end-of-sequence token or `max_tokens`.
///
/// The result of a row does not depend on the others of its batch (as far as the engine's arithmetic does
/// not): each leaves at its own layer, only the remaining rows are computed further, and rows that ended drop
/// out. Generations come in the order of the sources.
///
/// # Errors
/// [`DecodeError`] when the backbone cannot follow the policy, the engine fails, or numbers become too large.
pub fn decode(
    prompt: &dyn Prompt,
    policy: &dyn Policy,
    options: &DecodeOptions,
) -> Result<Vec<Generation>, DecodeError> {
    decode_watched(prompt, policy, options, |_| ControlFlow::Continue(()))
}

/// A token of an output that no later step changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinalToken {
    /// The token.
    pub token: Token,
    /// Layers that ran for it before it left, as in [`Generation::exit_layers`].
    pub exit_layer: usize,
}

/// Decodes the one row of `prompt` as [`decode`] does, and hands each token to `on_token` as soon as it is
/// final: drafts once they are verified. The decoding ends early where `on_token` breaks; what it was given
/// is the output then.
///
/// # Errors
/// As [`decode`], and if the prompt has not one row.
pub fn decode_streamed(
    prompt: &dyn Prompt,
    policy: &dyn Policy,
    options: &DecodeOptions,
    mut on_token: impl FnMut(FinalToken) -> ControlFlow<()>,
) -> Result<Generation, DecodeError> {
    let rows = prompt.first_inputs().len();
    if rows != 1 {
        return Err(PolicyError::Form(format!("one row can be streamed, not {rows}")).into());
    }
    let mut streamed = 0;
    let generations = decode_watched(prompt, policy, options, |decoder| {
        while let Some(token) = decoder.final_token(0, streamed) {
            streamed += 1;
            on_token(token)?;
        }
        ControlFlow::Continue(())
    })?;
    let mut generation = generations.into_iter().next().unwrap_or_default();
    generation.truncate(streamed);
    Ok(generation)
}

/// The decoding loop. After each step `watch` sees the decoder, and may end the decoding.
fn decode_watched(
    prompt: &dyn Prompt,
    policy: &dyn Policy,
    options: &DecodeOptions,
    mut watch: impl FnMut(&Decoder<'_>) -> ControlFlow<()>,
) -> Result<Vec<Generation>, DecodeError> {
    let _part = profile::enter(Part::Loop);
    let started = Instant::now();
    let shape = prompt.shape();
    let depth = policy.depth(shape.num_layers);
    if !(1..=shape.num_layers).contains(&depth) {
        return Err(PolicyError::StaticLayers { layers: depth, available: shape.num_layers }.into());
    }
    let mut inputs = prompt.first_inputs();
    let rows = inputs.len();
    check_sampling(policy, options, rows)?;
    if rows == 0 || options.max_tokens == 0 {
        return Ok(vec![Generation::default(); rows]);
    }

    policy.begin_batch();
    let mut decoder = Decoder::new(prompt, policy, depth, options)?;
    let mut running: Vec<Entry> = (0..rows).map(|row| Entry { row, position: 0 }).collect();
    while !running.is_empty() {
        decoder.step(&running, &inputs)?;
        if watch(&decoder).is_break() {
            break;
        }
        inputs.clear();
        running.retain_mut(|entry| {
            let next = decoder.next(entry.row);
            if let Some((position, input)) = next {
                entry.position = position;
                inputs.push(input);
            }
            next.is_some()
        });
    }
    let seconds = started.elapsed().as_secs_f64() / rows as f64;
    Ok(decoder.into_generations(seconds))
}

fn check_sampling(policy: &dyn Policy, options: &DecodeOptions, rows: usize) -> Result<(), PolicyError> {
    let Some(sampling) = &options.sampling else { return Ok(()) };
    if !policy.can_sample() {
        return Err(PolicyError::Form("the policy is about the best tokens and cannot draw them".to_owned()));
    }
    match sampling.rows() == rows {
        true => Ok(()),
        false => Err(PolicyError::Form(format!(
            "tokens of {rows} rows need as many seeds, not {}",
            sampling.rows()
        ))),
    }
}
