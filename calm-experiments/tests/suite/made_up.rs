//! A backbone whose every prediction is known beforehand: it copies its source, but each token has a difficulty, and layers
//! below it get the token wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use calm_core::{Backbone, BackboneShape, CacheEntry, DecoderSession, ExitClassifier, Matrix, Token};
use calm_experiments::runner::{Engine, TextCodec};

pub(crate) const NUM_LAYERS: usize = 4;
const VOCAB_SIZE: usize = 40;
const EOS: Token = 1;
const WRONG: Token = 3;

#[derive(Clone)]
pub(crate) struct MadeUp {
    shape: BackboneShape,
    classifier: Option<ExitClassifier>,
    /// Decodings until the engine breaks down, common to all workers.
    decodings_left: Arc<AtomicUsize>,
}

#[derive(Debug)]
pub(crate) struct Breakdown;

impl std::fmt::Display for Breakdown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the engine broke down")
    }
}

impl std::error::Error for Breakdown {}

/// The least layer that gets the token at `position` of `source` right, from 1 to all.
pub(crate) fn difficulty(source: &[Token], position: usize) -> usize {
    1 + (source[position] as usize * 7 + position * 3) % NUM_LAYERS
}

/// What layer `layer` predicts, and how far ahead of the rest.
fn prediction(source: &[Token], position: usize, layer: usize) -> (Token, f32) {
    let position = position.min(source.len() - 1);
    let is_right = layer >= difficulty(source, position);
    let doubt = (source[position] % 5) as f32 * 0.4;
    (if is_right { source[position] } else { WRONG }, if is_right { 5.0 - doubt } else { 3.0 - doubt })
}

/// Engine of `workers` made-up backbones that fails after so many decodings.
pub(crate) fn engine(workers: usize, decodings: usize) -> Engine<MadeUp, Words> {
    let backbone = MadeUp {
        shape: BackboneShape {
            num_encoder_layers: 1,
            num_decoder_layers: NUM_LAYERS,
            d_model: 2,
            inner: 2,
            d_ff: 4,
            gated: false,
            vocab_size: VOCAB_SIZE,
            start_token: 0,
            eos_token: EOS,
        },
        classifier: Some(ExitClassifier { weight: vec![0.0, 1.0], bias: 0.0 }),
        decodings_left: Arc::new(AtomicUsize::new(decodings)),
    };
    Engine {
        backbones: vec![backbone; workers],
        codec: Words,
        fingerprint: "made up".to_owned(),
        device: "cpu".to_owned(),
        prepare_thread: || {},
        synchronize: |_| {},
    }
}

pub(crate) fn engine_without_classifier() -> Engine<MadeUp, Words> {
    let mut engine = engine(1, usize::MAX);
    engine.backbones[0].classifier = None;
    engine
}

/// Words `w4`, `w5`, ... and their numbers.
pub(crate) struct Words;

impl TextCodec for Words {
    fn encode(&self, text: &str) -> anyhow::Result<Vec<Token>> {
        let words = text.split(' ').map(|word| Ok(word.trim_start_matches('w').parse()?));
        words.chain([Ok(EOS)]).collect()
    }

    fn decode(&self, tokens: &[Token]) -> anyhow::Result<String> {
        let words = tokens.iter().filter(|&&token| token != EOS).map(|token| format!("w{token}"));
        Ok(words.collect::<Vec<_>>().join(" "))
    }
}

impl Backbone for MadeUp {
    type Error = Breakdown;
    type Encoded = Vec<Vec<Token>>;
    type Session<'a> = Session;

    fn shape(&self) -> &BackboneShape {
        &self.shape
    }

    fn exit_classifier(&self) -> Option<&ExitClassifier> {
        self.classifier.as_ref()
    }

    fn encode(&self, sources: &[&[Token]]) -> Result<Self::Encoded, Breakdown> {
        Ok(sources.iter().map(|source| source.to_vec()).collect())
    }

    fn start(&self, encoded: &Self::Encoded, _max_tokens: usize) -> Result<Session, Breakdown> {
        let one_less = |left: usize| left.checked_sub(1);
        self.decodings_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .map_err(|_| Breakdown)?;
        Ok(Session { sources: encoded.clone(), position: 0, kept: vec![0; encoded.len()] })
    }
}

pub(crate) struct Session {
    sources: Vec<Vec<Token>>,
    position: usize,
    kept: Vec<usize>,
}

impl DecoderSession for Session {
    type Error = Breakdown;

    fn begin_step(&mut self, position: usize, _: &[usize], _: &[Token]) -> Result<(), Breakdown> {
        self.position = position;
        Ok(())
    }

    fn run_layer(&mut self, _: usize, _: &[usize]) -> Result<(), Breakdown> {
        Ok(())
    }

    fn hidden(&mut self, layer: usize, rows: &[usize]) -> Result<Matrix, Breakdown> {
        let state = |&row: &usize| {
            let (_, lead) = prediction(&self.sources[row], self.position, layer);
            [1.0 / (layer + 1) as f32, lead - 2.5]
        };
        Ok(Matrix { data: rows.iter().flat_map(state).collect(), columns: 2 })
    }

    fn logits(&mut self, layer: usize, rows: &[usize]) -> Result<Matrix, Breakdown> {
        let mut data = vec![0.0; rows.len() * VOCAB_SIZE];
        for (&row, logits) in rows.iter().zip(data.chunks_mut(VOCAB_SIZE)) {
            let (token, lead) = prediction(&self.sources[row], self.position, layer);
            logits[token as usize] = lead;
        }
        Ok(Matrix { data, columns: VOCAB_SIZE })
    }

    fn keep(&mut self, layer: usize, rows: &[usize]) -> Result<(), Breakdown> {
        rows.iter().for_each(|&row| self.kept[row] = layer);
        Ok(())
    }

    fn predict(&mut self, rows: &[usize]) -> Result<Vec<Token>, Breakdown> {
        Ok(rows.iter().map(|&row| prediction(&self.sources[row], self.position, self.kept[row]).0).collect())
    }

    fn propagate(&mut self, _: usize, _: &[CacheEntry]) -> Result<(), Breakdown> {
        Ok(())
    }
}
