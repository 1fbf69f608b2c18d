//! The decoding loop: each token of each row leaves the decoder as soon as its policy allows.

use std::time::Instant;

use crate::backbone::{Backbone, DecoderSession, Token};
use crate::exit_test::ExitTest;
use crate::generation::Generation;
use crate::policy::{Policy, PolicyError};
use crate::propagation::Propagator;
use crate::threshold::StepThreshold;

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
}

/// Why a batch could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError<E> {
    /// The backbone cannot follow the policy.
    #[error(transparent)]
    Policy(PolicyError),
    /// The engine failed.
    #[error(transparent)]
    Backbone(#[from] E),
    /// The engine answered for another number of rows than it was asked about.
    #[error("the engine's {call} answered for {found} rows instead of {expected}")]
    Rows {
        /// Method of the session.
        call: &'static str,
        /// Rows asked about.
        expected: usize,
        /// Rows in the answer.
        found: usize,
    },
}

/// Decodes all `rows` of `encoded` greedily, each until its end-of-sequence token or `max_tokens`.
///
/// The result of a row does not depend on the others of its batch (as far as the engine's arithmetic does
/// not): each leaves at its own layer, only the remaining rows are computed further, and rows that ended drop
/// out. `rows` is the number of sources that `encoded` was made of; generations come in their order.
///
/// # Errors
/// [`DecodeError`] when the backbone cannot follow the policy or the engine fails.
pub fn decode<B: Backbone>(
    backbone: &B,
    encoded: &B::Encoded,
    rows: usize,
    policy: &Policy,
    options: &DecodeOptions,
) -> Result<Vec<Generation>, DecodeError<B::Error>> {
    let started = Instant::now();
    let shape = backbone.shape();
    policy.check(shape).map_err(DecodeError::Policy)?;
    let mut generations = vec![Generation::default(); rows];
    if rows == 0 || options.max_tokens == 0 {
        return Ok(generations);
    }

    let mut decoder = Decoder {
        session: backbone.start(encoded, options.max_tokens)?,
        policy,
        options,
        num_layers: shape.num_decoder_layers,
        propagator: Propagator::new(shape.num_decoder_layers, rows),
        exits: vec![Exit::default(); rows],
    };
    let mut running: Vec<usize> = (0..rows).collect();
    let mut inputs = vec![shape.start_token; rows];
    for position in 0..options.max_tokens {
        decoder.step(position, &running, &inputs)?;
        for &row in &running {
            decoder.exits[row].record(&mut generations[row]);
        }
        running.retain(|&row| decoder.exits[row].token != Some(shape.eos_token));
        inputs.clear();
        inputs.extend(running.iter().filter_map(|&row| decoder.exits[row].token));
        if running.is_empty() {
            break;
        }
    }

    let seconds = started.elapsed().as_secs_f64() / rows as f64;
    for (generation, &propagated) in generations.iter_mut().zip(decoder.propagator.written()) {
        (generation.propagated, generation.seconds) = (propagated, seconds);
    }
    Ok(generations)
}

/// One decoding of a batch.
struct Decoder<'a, S> {
    session: S,
    policy: &'a Policy,
    options: &'a DecodeOptions,
    num_layers: usize,
    propagator: Propagator,
    /// How each row left in this step.
    exits: Vec<Exit>,
}

/// How one token of a row left the decoder.
#[derive(Debug, Clone, Default)]
struct Exit {
    /// 0 as long as it has not left.
    layer: usize,
    /// Of the last test, if there was one.
    confidence: Option<f32>,
    /// Known before the final prediction where the head was needed to decide the exit.
    token: Option<Token>,
    executed_layers: usize,
}

impl Exit {
    fn record(&self, generation: &mut Generation) {
        generation.tokens.extend(self.token);
        generation.exit_layers.push(self.layer);
        generation.confidence.push(self.confidence);
        generation.executed_layers += self.executed_layers;
    }
}

impl<S: DecoderSession> Decoder<'_, S> {
    /// One token for each of `rows`, into `self.exits`.
    fn step(
        &mut self,
        position: usize,
        rows: &[usize],
        inputs: &[Token],
    ) -> Result<(), DecodeError<S::Error>> {
        for &row in rows {
            self.exits[row] = Exit::default();
        }
        self.session.begin_step(position, rows, inputs)?;
        match self.policy {
            Policy::Full => self.run_layers(self.num_layers, None, position, rows)?,
            Policy::Static { layers } => self.run_layers(*layers, None, position, rows)?,
            Policy::Oracle => self.run_oracle(position, rows)?,
            Policy::Calm { measure, threshold } => {
                let test = match threshold.at(position, self.options.max_tokens) {
                    StepThreshold::NeverExit => None,
                    StepThreshold::AtLeast(threshold) => Some(ExitTest::new(&**measure, threshold)),
                };
                self.run_layers(self.num_layers, test, position, rows)?;
            }
        }
        self.predict(rows)?;
        if self.options.propagation == Propagation::Eager {
            for layer in 1..=self.num_layers {
                self.propagator.fill(&mut self.session, layer, rows, position + 1)?;
            }
        }
        Ok(())
    }

    /// Runs layers up to `depth`. With a test, rows leave after the first layer that passes it (paper Eq. 4).
    fn run_layers(
        &mut self,
        depth: usize,
        mut test: Option<ExitTest<'_>>,
        position: usize,
        rows: &[usize],
    ) -> Result<(), DecodeError<S::Error>> {
        let mut remaining = rows.to_vec();
        for layer in 1..depth {
            self.run_layer(layer, position, &remaining)?;
            let Some(test) = &mut test else { continue };
            let mut leaving = Vec::new();
            let verdicts = test.run(&mut self.session, layer, position, &remaining)?;
            for (&row, verdict) in remaining.iter().zip(verdicts) {
                self.exits[row].confidence = Some(verdict.confidence);
                if verdict.confident {
                    self.exits[row].token = verdict.token;
                    leaving.push(row);
                }
            }
            self.leave(layer, &leaving)?;
            remaining.retain(|&row| self.exits[row].layer == 0);
            if remaining.is_empty() {
                return Ok(());
            }
        }
        // After the last layer there is nothing to decide. The confidence of the layer before is kept.
        self.run_layer(depth, position, &remaining)?;
        self.leave(depth, &remaining)
    }

    /// Runs all layers, then has each row leave after the first one whose best token is that of the last.
    ///
    /// The full pass attends over the K/V that earlier exits left behind, as in the paper's released code.
    fn run_oracle(&mut self, position: usize, rows: &[usize]) -> Result<(), DecodeError<S::Error>> {
        let mut best = Vec::with_capacity(self.num_layers);
        for layer in 1..=self.num_layers {
            self.run_layer(layer, position, rows)?;
            let top2 = self.session.top2(layer, rows)?;
            expect_rows("top2", top2.len(), rows)?;
            best.push(top2);
        }
        let last = &best[self.num_layers - 1];
        for layer in 1..=self.num_layers {
            let mut leaving = Vec::new();
            for (index, &row) in rows.iter().enumerate() {
                let token = last[index].token;
                if self.exits[row].layer == 0 && best[layer - 1][index].token == token {
                    self.exits[row].token = Some(token);
                    leaving.push(row);
                }
            }
            self.leave(layer, &leaving)?;
            self.propagator.discard_above(layer, &leaving, position);
        }
        Ok(())
    }

    /// Runs `layer` for `rows`, after writing the K/V that their earlier tokens did not leave there.
    fn run_layer(
        &mut self,
        layer: usize,
        position: usize,
        rows: &[usize],
    ) -> Result<(), DecodeError<S::Error>> {
        self.propagator.fill(&mut self.session, layer, rows, position)?;
        self.session.run_layer(layer, rows)?;
        self.propagator.ran(layer, rows, position);
        for &row in rows {
            self.exits[row].executed_layers += 1;
        }
        Ok(())
    }

    /// `rows` leave after `layer`: its states stand in for those of the layers above.
    fn leave(&mut self, layer: usize, rows: &[usize]) -> Result<(), DecodeError<S::Error>> {
        for &row in rows {
            self.exits[row].layer = layer;
        }
        if rows.is_empty() { Ok(()) } else { Ok(self.session.keep(layer, rows)?) }
    }

    /// The tokens that are not known yet, with one product of the head for all layers they left at.
    fn predict(&mut self, rows: &[usize]) -> Result<(), DecodeError<S::Error>> {
        let open: Vec<usize> = rows.iter().copied().filter(|&row| self.exits[row].token.is_none()).collect();
        if open.is_empty() {
            return Ok(());
        }
        let tokens = self.session.predict(&open)?;
        expect_rows("predict", tokens.len(), &open)?;
        for (row, token) in open.into_iter().zip(tokens) {
            self.exits[row].token = Some(token);
        }
        Ok(())
    }
}

pub(crate) fn expect_rows<E>(call: &'static str, found: usize, rows: &[usize]) -> Result<(), DecodeError<E>> {
    match found == rows.len() {
        true => Ok(()),
        false => Err(DecodeError::Rows { call, expected: rows.len(), found }),
    }
}
