//! A backbone whose every prediction is known beforehand: it copies its source, but each token has a
//! difficulty, and layers below it get the token wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use calm_checkpoint::Model;
use calm_core::{
    Backbone, BackboneShape, Cost, DecoderSession, EngineError, Entry, ExitClassifier, Matrix, Prompt, Token,
};
use calm_engine::engine::{Engine, TextCodec};

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

fn made_up(decodings: usize) -> MadeUp {
    MadeUp {
        shape: BackboneShape {
            num_layers: NUM_LAYERS,
            d_model: 2,
            vocab_size: VOCAB_SIZE,
            eos_tokens: vec![EOS],
            flops: Cost {
                layer: 80.0,
                layer_per_key: 8.0,
                layer_per_source_token: 8.0,
                first_reach_per_source_token: 16.0,
                skipped_layer: 16.0,
                head: 160.0,
                exit_head: 0.0,
            },
            bytes: Cost::default(),
        },
        classifier: Some(ExitClassifier { weight: vec![0.0, 1.0], bias: 0.0 }),
        decodings_left: Arc::new(AtomicUsize::new(decodings)),
    }
}

/// Engine of `workers` made-up backbones that fails after so many decodings.
pub(crate) fn engine(workers: usize, decodings: usize) -> Engine {
    Engine::new(Box::new(made_up(decodings)), workers, 1, Some(Box::new(Words)))
}

pub(crate) fn engine_without_classifier() -> Engine {
    let model = MadeUp { classifier: None, ..made_up(usize::MAX) };
    Engine::new(Box::new(model), 1, 1, Some(Box::new(Words)))
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
    fn shape(&self) -> &BackboneShape {
        &self.shape
    }

    fn exit_classifier(&self) -> Option<&ExitClassifier> {
        self.classifier.as_ref()
    }

    fn read<'a>(&'a self, sources: &[&[Token]]) -> Result<Box<dyn Prompt + 'a>, EngineError> {
        let sources = sources.iter().map(|source| source.to_vec()).collect();
        Ok(Box::new(Sources { model: self, sources }))
    }
}

impl Model for MadeUp {
    fn share(&self, _: usize) -> Box<dyn Model> {
        Box::new(self.clone())
    }

    fn fingerprint(&self) -> &str {
        "made up"
    }

    fn device(&self) -> String {
        "cpu".to_owned()
    }

    fn unexpected(&self) -> &[String] {
        &[]
    }

    fn num_inputs(&self) -> usize {
        VOCAB_SIZE
    }
}

struct Sources<'a> {
    model: &'a MadeUp,
    sources: Vec<Vec<Token>>,
}

impl Prompt for Sources<'_> {
    fn shape(&self) -> &BackboneShape {
        &self.model.shape
    }

    fn first_inputs(&self) -> Vec<Token> {
        vec![0; self.sources.len()]
    }

    fn start(&self, _: usize) -> Result<Box<dyn DecoderSession + '_>, EngineError> {
        let one_less = |left: usize| left.checked_sub(1);
        let left = self.model.decodings_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        left.map_err(|_| EngineError::new("the engine broke down"))?;
        Ok(Box::new(Session { sources: &self.sources, layers: BTreeMap::new() }))
    }
}

struct Session<'a> {
    sources: &'a [Vec<Token>],
    /// The layer that each entry has its state from.
    layers: BTreeMap<Entry, usize>,
}

impl Session<'_> {
    fn prediction(&self, entry: &Entry) -> (Token, f32) {
        prediction(&self.sources[entry.row], entry.position, self.layers[entry])
    }
}

impl DecoderSession for Session<'_> {
    fn embed(&mut self, entries: &[Entry], _: &[Token]) -> Result<(), EngineError> {
        self.layers.extend(entries.iter().map(|&entry| (entry, 0)));
        Ok(())
    }

    fn run_layer(&mut self, layer: usize, entries: &[Entry]) -> Result<(), EngineError> {
        self.layers.extend(entries.iter().map(|&entry| (entry, layer)));
        Ok(())
    }

    fn propagate(&mut self, _: usize, _: &[Entry]) -> Result<(), EngineError> {
        Ok(())
    }

    fn hidden(&mut self, entries: &[Entry]) -> Result<Matrix, EngineError> {
        let state = |entry: &Entry| [1.0 / (self.layers[entry] + 1) as f32, self.prediction(entry).1 - 2.5];
        Ok(Matrix { data: entries.iter().flat_map(state).collect(), columns: 2 })
    }

    fn set_hidden(&mut self, entries: &[Entry], states: &Matrix) -> Result<(), EngineError> {
        let layer = |state: &[f32]| (1.0 / state[0]).round() as usize - 1;
        self.layers.extend(entries.iter().copied().zip(states.rows().map(layer)));
        Ok(())
    }

    fn logits(&mut self, entries: &[Entry]) -> Result<Matrix, EngineError> {
        let mut data = vec![0.0; entries.len() * VOCAB_SIZE];
        for (entry, logits) in entries.iter().zip(data.chunks_mut(VOCAB_SIZE)) {
            let (token, lead) = self.prediction(entry);
            logits[token as usize] = lead;
        }
        Ok(Matrix { data, columns: VOCAB_SIZE })
    }

    fn logits_of(&mut self, _: &Matrix) -> Result<Matrix, EngineError> {
        Err(EngineError::new("there are no exit heads"))
    }

    fn crop(&mut self, row: usize, length: usize) -> Result<(), EngineError> {
        self.layers.retain(|entry, _| entry.row != row || entry.position < length);
        Ok(())
    }
}
