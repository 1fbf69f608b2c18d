//! Beam search with the full model: what a better search finds, to compare early exits with.
//!
//! It is that of Hugging Face transformers, `generate(num_beams=K, do_sample=False, early_stopping=False)`:
//! `_beam_search` in `generation/utils.py`, release 5.

use std::time::Instant;

use crate::backbone::{BackboneShape, DecoderSession, Entry, Prompt, Token};
use crate::error::DecodeError;
use crate::generation::Generation;
use crate::layer::Layer;
use crate::matrix::{Matrix, Top2, best_tokens};
use crate::profile::{self, Part};

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamOptions {
    /// Hypotheses that go on, and hypotheses that are kept when they have ended, for each source; at least 1.
    pub beams: usize,
    /// The score of a hypothesis that has ended is the logarithm of its probability divided by its length to
    /// the power of this: 0 is the probability itself, larger ones prefer longer outputs.
    pub length_penalty: f64,
    /// Longest output in tokens.
    pub max_tokens: usize,
}

impl BeamOptions {
    /// The usual length penalty, 1.
    pub fn new(beams: usize, max_tokens: usize) -> Self {
        Self { beams, length_penalty: 1.0, max_tokens }
    }

    /// Each source as often as there are hypotheses: what a prompt of [`beam_search`] has to be read from.
    pub fn rows<'a>(&self, sources: &[&'a [Token]]) -> Vec<&'a [Token]> {
        sources.iter().flat_map(|source| std::iter::repeat_n(*source, self.beams)).collect()
    }
}

/// Searches the best output of each source; `prompt` has read [`BeamOptions::rows`].
///
/// Of a source's hypotheses, each with every token behind it, the `(1 + end tokens) * beams` of highest
/// probability are candidates, at least `2 * beams`. Those of the first `beams` which end are kept, if their
/// scores are among the best `beams` so far; of the others as many go on. The search ends when `beams` have
/// ended and none that goes on has a better score at its length so far, or at `max_tokens`, where all end.
/// The one of highest score is the output. With one beam it is the greedy one.
///
/// All layers run for every token. A generation's executed layers are those of all hypotheses of its source.
/// Sources do not depend on each other, beyond the rounding of the engine, and drop out when they end.
///
/// # Errors
/// There are no beams, rows do not divide by their number, the length penalty is no number, the engine fails
/// or cannot copy rows, or numbers become too large.
pub fn beam_search(prompt: &dyn Prompt, options: &BeamOptions) -> Result<Vec<Generation>, DecodeError> {
    let _part = profile::enter(Part::Loop);
    let started = Instant::now();
    let first_inputs = prompt.first_inputs();
    let (rows, beams) = (first_inputs.len(), options.beams);
    if beams == 0 || !rows.is_multiple_of(beams) {
        return Err(DecodeError::Beams(format!("{beams} beams for each source do not make {rows} rows")));
    }
    if !options.length_penalty.is_finite() {
        return Err(DecodeError::Beams(format!("{} is no length penalty", options.length_penalty)));
    }
    if rows == 0 || options.max_tokens == 0 {
        return Ok(vec![Generation::default(); rows / beams]);
    }
    let shape = prompt.shape();
    let mut session = prompt.start(options.max_tokens)?;
    let mut searches: Vec<Search> = (0..rows / beams).map(|_| Search::new()).collect();
    for position in 0..options.max_tokens {
        let (mut entries, mut inputs) = (Vec::new(), Vec::new());
        for (search, first_row) in searches.iter().zip((0..).step_by(beams)) {
            for (row, hypothesis) in (first_row..).zip(&search.running) {
                entries.push(Entry { row, position });
                inputs.push(hypothesis.tokens.last().copied().unwrap_or(first_inputs[row]));
            }
        }
        if entries.is_empty() {
            break;
        }
        let logits = all_layers(&mut *session, shape, &entries, &inputs)?;
        let mut logits = logits.rows();
        let mut from: Vec<usize> = (0..rows).collect();
        for (search, first_row) in searches.iter_mut().zip((0..).step_by(beams)) {
            search.executed_layers += search.running.len() * shape.num_layers;
            let logits: Vec<&[f32]> = logits.by_ref().take(search.running.len()).collect();
            let parents = search.step(&logits, &shape.eos_tokens, options);
            for (row, parent) in (first_row..).zip(parents) {
                from[row] = first_row + parent;
            }
        }
        if !from.is_sorted_by(|a, b| a < b) {
            session.copy_rows(&from)?;
        }
    }
    let seconds = started.elapsed().as_secs_f64() / searches.len() as f64;
    Ok(searches.into_iter().map(|search| search.best(shape.num_layers, seconds)).collect())
}

/// Logits after the last layer: `[entries, vocab_size]`.
fn all_layers(
    session: &mut dyn DecoderSession,
    shape: &BackboneShape,
    entries: &[Entry],
    inputs: &[Token],
) -> Result<Matrix, DecodeError> {
    session.embed(entries, inputs)?;
    for layer in 1..=shape.num_layers {
        session.run_layer(layer, entries)?;
    }
    let mut layer = Layer::new(session, shape, shape.num_layers, entries);
    let logits = layer.logits()?;
    let best: Vec<Top2> = logits.rows().map(Top2::from_logits).collect();
    layer.check(best.iter())?;
    Ok(logits)
}

/// The search for one source. Its row number i is that of `running[i]`.
struct Search {
    /// The best first.
    running: Vec<Hypothesis>,
    /// The best first.
    ended: Vec<Hypothesis>,
    executed_layers: usize,
}

/// An output, or the beginning of one.
#[derive(Debug, Clone)]
struct Hypothesis {
    tokens: Vec<Token>,
    /// Logarithm of its probability; of one that has ended, with the length penalty.
    score: f64,
}

/// A token behind a hypothesis that runs.
struct Candidate {
    parent: usize,
    token: Token,
    /// Logarithm of the probability of both.
    score: f64,
}

impl Search {
    fn new() -> Self {
        let nothing = Hypothesis { tokens: Vec::new(), score: 0.0 };
        Self { running: vec![nothing], ended: Vec::new(), executed_layers: 0 }
    }

    /// Goes on by a token, given the logits of all hypotheses that run: the hypotheses that those which run
    /// now come from.
    fn step(&mut self, logits: &[&[f32]], eos_tokens: &[Token], options: &BeamOptions) -> Vec<usize> {
        let &BeamOptions { beams, length_penalty, max_tokens } = options;
        let Some(length) = self.running.first().map(|hypothesis| hypothesis.tokens.len() + 1) else {
            return Vec::new();
        };
        let penalty = (length as f64).powf(length_penalty);
        let (mut running, mut parents) = (Vec::with_capacity(beams), Vec::with_capacity(beams));
        for (rank, candidate) in self.candidates(logits, eos_tokens, beams).into_iter().enumerate() {
            let Candidate { parent, token, score } = candidate;
            let extended = |score| {
                let tokens = self.running[parent].tokens.iter().copied().chain([token]).collect();
                Hypothesis { tokens, score }
            };
            if eos_tokens.contains(&token) || length == max_tokens {
                if rank < beams {
                    self.ended.push(extended(score / penalty));
                }
            } else if running.len() < beams {
                running.push(extended(score));
                parents.push(parent);
            }
        }
        // Of equals the earlier one stays.
        self.ended.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.ended.truncate(beams);
        let worst = self.ended.last().filter(|_| self.ended.len() == beams);
        let can_improve = |best: &Hypothesis| worst.is_none_or(|worst| best.score / penalty > worst.score);
        if !running.first().is_some_and(can_improve) {
            (running, parents) = (Vec::new(), Vec::new());
        }
        self.running = running;
        parents
    }

    /// The most probable continuations; of equals the one of the better hypothesis and the lower token.
    fn candidates(&self, logits: &[&[f32]], eos_tokens: &[Token], beams: usize) -> Vec<Candidate> {
        let count = beams.saturating_mul((1 + eos_tokens.len()).max(2));
        let mut candidates = Vec::new();
        for (parent, (logits, hypothesis)) in logits.iter().zip(&self.running).enumerate() {
            let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
            let ln_sum = largest + sum.ln();
            candidates.extend(best_tokens(logits, count).into_iter().map(|token| {
                let score = hypothesis.score + f64::from(logits[token as usize]) - ln_sum;
                Candidate { parent, token, score }
            }));
        }
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
        candidates.truncate(count);
        candidates
    }

    fn best(self, num_layers: usize, seconds: f64) -> Generation {
        let tokens = self.ended.into_iter().next().map_or(Vec::new(), |best| best.tokens);
        Generation {
            exit_layers: vec![num_layers; tokens.len()],
            confidence: vec![None; tokens.len()],
            drafted: 0,
            fallbacks: 0,
            executed_layers: self.executed_layers,
            propagated: 0,
            seconds,
            tokens,
        }
    }
}
