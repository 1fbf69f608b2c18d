//! Decoding at full depth, while every measure says at every layer what it would.

use std::sync::{Mutex, PoisonError};

use calm_checkpoint::Model;
use calm_core::{
    Decision, DecodeError, DecodeOptions, Entry, Exits, Layer, MEASURES, Mapping, Measure, MeasureKind,
    Memory, Policy, StepMeasure, StepPolicy, Token, decode,
};
use calm_engine::decoding::map_batches;

/// What a measure says of a token at one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The confidence.
    pub confidence: f32,
    /// Whether the token that the entry would leave with is that of the last layer.
    pub agrees: bool,
}

/// Readings of one measure under one set of exits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stream {
    /// The measure that was read.
    pub measure: &'static MeasureKind,
    /// What its confidences depend on.
    pub memory: Memory,
    /// The layers after which it was read.
    pub exits: Exits,
}

/// Everything that was read along some full-depth outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Observations {
    /// Decoder layers of the model.
    pub num_layers: usize,
    /// Fingerprint of its exit heads, if it has any.
    pub exit_heads: Option<String>,
    /// What was read, in the order of the readings of a token.
    pub streams: Vec<Stream>,
    /// By example, in the order of the sources: the output tokens, each with the readings of all streams,
    /// layer by layer.
    pub examples: Vec<Vec<Vec<Reading>>>,
}

impl Observations {
    /// Where among the readings of a token those of a stream at a layer are.
    pub fn place(&self, measure: &MeasureKind, exits: Exits, layer: usize) -> Option<usize> {
        let mut start = 0;
        for stream in &self.streams {
            let of_layer = stream.exits.up_to(layer).len();
            let same = stream.memory.tests(exits, layer) == stream.memory.tests(stream.exits, layer);
            if stream.measure == measure && stream.exits.contains(layer) && same {
                return Some(start + of_layer - 1);
            }
            start += stream.exits.len();
        }
        None
    }

    /// Number of output tokens.
    pub fn tokens(&self) -> usize {
        self.examples.iter().map(Vec::len).sum()
    }
}

/// The measures that maps are fitted for: each measure of the table that maps another, with what it maps.
pub fn mapped_measures() -> Vec<(&'static MeasureKind, Mapping)> {
    MEASURES.all().into_iter().filter_map(|kind| Some((kind, kind.maps?))).collect()
}

/// Decodes sources at full depth, side by side on all handles of a model, and reads all measures that have
/// maps wherever their confidences may differ. A measure whose confidences depend on all tests before is read
/// under `exits` and after all layers. What the model does not have (exit heads, or a head for some layer) is
/// left out.
///
/// # Errors
/// The engine fails.
pub fn observe(
    models: &mut [Box<dyn Model>],
    sources: &[Vec<Token>],
    batch_size: usize,
    max_tokens: usize,
    exits: &[Exits],
) -> Result<Observations, DecodeError> {
    let num_layers = models[0].shape().num_layers;
    let streams = streams(&*models[0], num_layers, exits);
    let examples = map_batches(models, sources, batch_size, |model, sources| {
        observe_batch(model, sources, max_tokens, &streams)
    })?;
    let exit_heads = models[0].exit_heads().map(|heads| heads.fingerprint().to_owned());
    Ok(Observations { num_layers, exit_heads, streams, examples })
}

fn streams(model: &dyn Model, num_layers: usize, exits: &[Exits]) -> Vec<Stream> {
    let all = Exits::all_below(num_layers);
    let mut streams: Vec<Stream> = Vec::new();
    for (_, Mapping { base: measure, .. }) in mapped_measures() {
        let Ok(loaded) = (measure.load)(model) else { continue };
        let memory = loaded.memory();
        // A head of the last layer has nobody above to agree with.
        let able = loaded.layers().unwrap_or(all).up_to(num_layers - 1);
        let sets: Vec<Exits> = match memory {
            Memory::Nothing => vec![able],
            Memory::FirstTest => all.layers().map(|first| all.from(first)).collect(),
            Memory::AllTests => std::iter::once(all).chain(exits.iter().copied()).collect(),
        };
        let is_able = |set: &Exits| !set.is_empty() && set.layers().all(|layer| able.contains(layer));
        let sets = sets.into_iter().filter(is_able);
        let new = sets.map(|exits| Stream { measure, memory, exits });
        streams.extend(new.filter(|stream| !streams.contains(stream)).collect::<Vec<_>>());
    }
    streams
}

/// The tokens of each row.
fn observe_batch(
    model: &dyn Model,
    sources: &[&[Token]],
    max_tokens: usize,
    streams: &[Stream],
) -> Result<Vec<Vec<Vec<Reading>>>, DecodeError> {
    let mut measures = Vec::with_capacity(streams.len());
    for stream in streams {
        measures.push((stream.exits, (stream.measure.load)(model)?));
    }
    let observer = Observer { measures, rows: Mutex::new(vec![Vec::new(); sources.len()]) };
    let prompt = model.read(sources)?;
    decode(&*prompt, &observer, &DecodeOptions::new(max_tokens))?;
    Ok(observer.rows.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// A policy under which no token leaves early, and everything is read.
struct Observer {
    measures: Vec<(Exits, Box<dyn Measure>)>,
    rows: Mutex<Vec<Vec<Vec<Reading>>>>,
}

struct Step<'a> {
    streams: Vec<StreamStep<'a>>,
    rows: &'a Mutex<Vec<Vec<Vec<Reading>>>>,
}

struct StreamStep<'a> {
    exits: Exits,
    measure: Box<dyn StepMeasure + 'a>,
    /// By layer, the confidence and the token of each entry.
    read: Vec<Vec<(f32, Token)>>,
}

impl Policy for Observer {
    fn begin_step(&self, _: usize) -> Box<dyn StepPolicy + '_> {
        let streams = self.measures.iter().map(|(exits, measure)| StreamStep {
            exits: *exits,
            measure: measure.begin_step(),
            read: Vec::new(),
        });
        Box::new(Step { streams: streams.collect(), rows: &self.rows })
    }
}

impl StepPolicy for Step<'_> {
    fn decide(&mut self, layer: &mut Layer<'_>, _: &mut [Decision]) -> Result<(), DecodeError> {
        if !layer.is_last() {
            let (number, mut tokens) = (layer.number(), None::<Vec<Token>>);
            for stream in self.streams.iter_mut().filter(|stream| stream.exits.contains(number)) {
                let found = stream.measure.confidence(layer)?;
                let mut read = Vec::with_capacity(found.len());
                for (index, found) in found.into_iter().enumerate() {
                    let token = match (found.token, &tokens) {
                        (Some(token), _) => token,
                        (None, Some(tokens)) => tokens[index],
                        // A measure of states leaves the token to the head.
                        (None, None) => {
                            let best = layer.top2()?.into_iter().map(|top2| top2.token).collect();
                            tokens.insert(best)[index]
                        }
                    };
                    read.push((found.value, token));
                }
                stream.read.push(read);
            }
            return Ok(());
        }
        let last = layer.top2()?;
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, (&Entry { row, .. }, last)) in layer.entries().iter().zip(last).enumerate() {
            let layers = self.streams.iter().flat_map(|stream| &stream.read);
            let reading = |read: &Vec<(f32, Token)>| {
                let (confidence, token) = read[index];
                Reading { confidence, agrees: token == last.token }
            };
            rows[row].push(layers.map(reading).collect());
        }
        Ok(())
    }
}
