//! The decoding loop: each token of each row leaves the decoder as soon as its policy allows.

use std::time::Instant;

use crate::backbone::{BackboneShape, DecoderSession, Entry, Prompt, Token};
use crate::caches::Caches;
use crate::error::{DecodeError, NotFinite, PolicyError};
use crate::finite;
use crate::generation::Generation;
use crate::layer::{Layer, expect_rows};
use crate::policy::{Decision, Policy};
use crate::profile::{self, Part};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Longest output; also N of the decaying threshold.
    pub max_tokens: usize,
    /// When the K/V of skipped layers are computed.
    pub propagation: Propagation,
    /// Whether outputs go on to their longest after an end-of-sequence token, so that all measure the same
    /// work.
    pub ignore_eos: bool,
}

impl DecodeOptions {
    /// The usual way of decoding at most `max_tokens`.
    pub fn new(max_tokens: usize) -> Self {
        Self { max_tokens, propagation: Propagation::Lazy, ignore_eos: false }
    }
}

/// Decodes all rows of `prompt` greedily, each until an end-of-sequence token or `max_tokens`.
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
    let _part = profile::enter(Part::Loop);
    let started = Instant::now();
    let shape = prompt.shape();
    let depth = policy.depth(shape.num_layers);
    if !(1..=shape.num_layers).contains(&depth) {
        return Err(PolicyError::StaticLayers { layers: depth, available: shape.num_layers }.into());
    }
    let mut inputs = prompt.first_inputs();
    let rows = inputs.len();
    let mut generations = vec![Generation::default(); rows];
    if rows == 0 || options.max_tokens == 0 {
        return Ok(generations);
    }

    let mut decoder = Decoder {
        session: prompt.start(options.max_tokens)?,
        shape,
        policy,
        depth,
        options,
        caches: Caches::new(shape.num_layers, rows),
        exits: vec![Exit::default(); rows],
    };
    let mut running: Vec<Entry> = (0..rows).map(|row| Entry { row, position: 0 }).collect();
    while !running.is_empty() {
        if let Err(error) = decoder.step(&running, &inputs) {
            return Err(decoder.with_first_layer(error, &running, &inputs));
        }
        inputs.clear();
        running.retain_mut(|entry| {
            let exit = &decoder.exits[entry.row];
            exit.record(&mut generations[entry.row]);
            entry.position += 1;
            let ends = !options.ignore_eos && shape.eos_tokens.contains(&exit.token);
            let goes_on = !ends && entry.position < options.max_tokens;
            inputs.extend(goes_on.then_some(exit.token));
            goes_on
        });
    }

    let seconds = started.elapsed().as_secs_f64() / rows as f64;
    for (generation, &propagated) in generations.iter_mut().zip(decoder.caches.propagated()) {
        (generation.propagated, generation.seconds) = (propagated, seconds);
    }
    Ok(generations)
}

/// One decoding of a batch.
struct Decoder<'a> {
    session: Box<dyn DecoderSession + 'a>,
    shape: &'a BackboneShape,
    policy: &'a dyn Policy,
    /// Layers that run at most.
    depth: usize,
    options: &'a DecodeOptions,
    caches: Caches,
    /// How each row left in this step.
    exits: Vec<Exit>,
}

/// How one token of a row left the decoder.
#[derive(Debug, Clone, Default)]
struct Exit {
    layer: usize,
    /// Confidence of the last test, if there was one.
    confidence: Option<f32>,
    token: Token,
    executed_layers: usize,
}

impl Exit {
    fn record(&self, generation: &mut Generation) {
        generation.tokens.push(self.token);
        generation.exit_layers.push(self.layer);
        generation.confidence.push(self.confidence);
        generation.executed_layers += self.executed_layers;
    }
}

impl Decoder<'_> {
    /// One token at each of `entries`, into `self.exits`.
    fn step(&mut self, entries: &[Entry], inputs: &[Token]) -> Result<(), DecodeError> {
        self.session.embed(entries, inputs)?;
        let begin_step = || self.policy.begin_step(self.options.max_tokens);
        let mut policy = profile::within(Part::Confidence, begin_step);
        for entry in entries {
            self.exits[entry.row] = Exit::default();
        }
        let mut remaining = entries.to_vec();
        let mut decisions = Vec::new();
        let mut without_token = Vec::new();
        for number in 1..=self.depth {
            self.run_layer(number, &remaining)?;
            decisions.clear();
            decisions.resize(remaining.len(), Decision::default());
            let layer = Layer::new(&mut *self.session, self.shape, number, &remaining);
            let decide = || policy.decide(&mut layer.up_to(self.depth), &mut decisions);
            profile::within(Part::Confidence, decide)?;
            profile::count_exit_tests(|| {
                decisions.iter().filter(|decision| decision.confidence.is_some()).count()
            });
            let mut decided = decisions.iter();
            remaining.retain(|&entry| {
                let Some(decision) = decided.next() else { return false };
                let exit = &mut self.exits[entry.row];
                exit.confidence = decision.confidence.or(exit.confidence);
                if decision.exit_layer.is_none() && number < self.depth {
                    return true;
                }
                exit.layer = decision.exit_layer.unwrap_or(number);
                if exit.layer < number {
                    self.caches.discard_above(exit.layer, entry);
                }
                match decision.token {
                    Some(token) => exit.token = token,
                    None => without_token.push(entry),
                }
                false
            });
            if remaining.is_empty() {
                break;
            }
        }
        self.predict(without_token)?;
        if self.options.propagation == Propagation::Eager {
            let next: Vec<Entry> = entries
                .iter()
                .map(|&Entry { row, position }| Entry { row, position: position + 1 })
                .collect();
            for layer in 1..=self.shape.num_layers {
                self.caches.fill(&mut *self.session, layer, &next)?;
            }
        }
        Ok(())
    }

    /// Runs `layer` for `entries`, after writing the K/V that their rows' earlier tokens did not leave there.
    fn run_layer(&mut self, layer: usize, entries: &[Entry]) -> Result<(), DecodeError> {
        self.caches.fill(&mut *self.session, layer, entries)?;
        self.session.run_layer(layer, entries)?;
        self.caches.ran(layer, entries);
        for entry in entries {
            self.exits[entry.row].executed_layers += 1;
        }
        Ok(())
    }

    /// Names the layer that made a state too large, which was noticed where the state was made use of.
    fn with_first_layer(&mut self, error: DecodeError, entries: &[Entry], inputs: &[Token]) -> DecodeError {
        let DecodeError::NotFinite { what: NotFinite::States, row, layer: last, .. } = error else {
            return error;
        };
        let found = entries.iter().zip(inputs).find(|(entry, _)| entry.row == row);
        found.and_then(|(&entry, &input)| self.first_layer(entry, input, last).ok()?).unwrap_or(error)
    }

    /// Takes an entry through the layers again, up to the one that makes its state too large.
    fn first_layer(
        &mut self,
        entry: Entry,
        input: Token,
        last: usize,
    ) -> Result<Option<DecodeError>, DecodeError> {
        let entries = [entry];
        self.caches.discard_above(0, entry);
        self.session.embed(&entries, &[input])?;
        for layer in 0..=last {
            if layer > 0 {
                self.run_layer(layer, &entries)?;
            }
            if finite::first_too_large(&mut *self.session, &entries)?.is_some() {
                return Ok(Some(finite::error(NotFinite::States, layer, entry)));
            }
        }
        Ok(None)
    }

    /// The tokens that are not known yet, with one product of the head for all layers they left at.
    fn predict(&mut self, mut entries: Vec<Entry>) -> Result<(), DecodeError> {
        if entries.is_empty() {
            return Ok(());
        }
        entries.sort_unstable();
        let tokens = self.session.predict(&entries)?;
        expect_rows("the engine's predict", tokens.len(), &entries)?;
        let mut suspicious = Vec::new();
        for (entry, token) in entries.into_iter().zip(tokens) {
            self.exits[entry.row].token = token;
            if token == finite::LOWEST_TOKEN {
                suspicious.push(entry);
            }
        }
        if suspicious.is_empty() {
            return Ok(());
        }
        if let Some(entry) = finite::first_too_large(&mut *self.session, &suspicious)? {
            return Err(finite::error(NotFinite::States, self.exits[entry.row].layer, entry));
        }
        Ok(())
    }
}
