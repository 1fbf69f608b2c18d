//! Which layers to test after, and by which measure, by the time it takes.
//!
//! Two things decide how long a token takes: how many layers and tests it needs until a measure is as sure as
//! is asked for, which full-depth outputs tell ([`search`]), and what a layer and a test take on
//! this engine with this model, which is measured ([`measure_costs`]). What is chosen here is chosen on
//! training data; a guarantee is computed for it afterwards, as for any other measure and exits.

use std::time::Instant;

use calm_checkpoint::Model;
use calm_core::{
    AgreementMaps, Decision, DecodeError, DecodeOptions, Exits, Layer, Mapping, Measure, MeasureKind, Policy,
    StaticDepth, StepMeasure, StepPolicy, Token, decode,
};
use calm_engine::decoding::{ReadBatch, read_batch};
use serde::Serialize;

use crate::Error;
use crate::observe::{Observations, Reading, mapped_measures};

/// Decoders with more layers are searched for sets of so many exits at most.
const MOST_EXITS: usize = 4;
/// Layers up to which all sets are searched.
const ALL_SETS_UP_TO: usize = 9;
/// Times that a decoding is measured; the least time counts.
const REPETITIONS: usize = 3;

/// What a token takes, in seconds, with one measure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Costs {
    /// The token's share of everything but layers, tests and prediction: reading sources, the loop.
    pub base: f64,
    /// A layer.
    pub layer: f64,
    /// The prediction of a token that no test has given.
    pub prediction: f64,
    /// The first test of a token.
    pub first_test: f64,
    /// Each later one.
    pub later_test: f64,
}

/// A set of exits with a measure and the least threshold at which enough tokens are the last layer's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// The measure.
    pub measure: &'static MeasureKind,
    /// The layers after which is tested.
    pub exits: Exits,
    /// The threshold.
    pub threshold: f64,
    /// Share of tokens that are the last layer's.
    pub agreement: f64,
    /// Mean layers of a token.
    pub layers: f64,
    /// Mean tests of a token.
    pub tests: f64,
    /// Expected time of a token, in seconds.
    pub seconds: f64,
    /// Time of a token at full depth, in seconds.
    pub full_seconds: f64,
}

/// The readings of one measure, mapped to probabilities.
struct Mapped<'a> {
    observations: &'a Observations,
    maps: &'a AgreementMaps,
    measure: &'static MeasureKind,
    mapping: Mapping,
}

/// Finds the fastest set of exits for each measure and each share of tokens that are to be the last layer's,
/// the fastest first.
///
/// # Errors
/// No measure with maps reaches the share.
pub fn search(
    observations: &Observations,
    maps: &AgreementMaps,
    costs: &[(&'static MeasureKind, Costs)],
    agreement: f64,
) -> Result<Vec<Candidate>, Error> {
    let mut candidates = Vec::new();
    for &(measure, costs) in costs {
        let Some(mapping) = measure.maps else { continue };
        let mapped = Mapped { observations, maps, measure, mapping };
        for exits in sets(observations.num_layers) {
            candidates.extend(mapped.candidate(exits, &costs, agreement));
        }
    }
    candidates.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    match candidates.is_empty() {
        true => Err(Error::Data(format!("no measure gives {agreement} of the last layer's tokens"))),
        false => Ok(candidates),
    }
}

/// All sets of exits of a decoder, or those of a few layers if it has many.
fn sets(num_layers: usize) -> Vec<Exits> {
    let all: Vec<usize> = Exits::all_below(num_layers).layers().collect();
    let most = if num_layers <= ALL_SETS_UP_TO { all.len() } else { MOST_EXITS };
    let (mut sets, mut of_size) = (Vec::new(), vec![Vec::new()]);
    for _ in 0..most {
        let larger = |set: &Vec<usize>| {
            let last = set.last().copied().unwrap_or(0);
            let with = |&layer: &usize| set.iter().copied().chain([layer]).collect();
            all.iter().filter(|&&layer| layer > last).map(with).collect::<Vec<Vec<usize>>>()
        };
        of_size = of_size.iter().flat_map(larger).collect();
        sets.extend(of_size.iter().filter_map(|layers| Exits::new(layers).ok()));
    }
    sets
}

impl Mapped<'_> {
    /// The candidate with the least threshold at which the share is reached; `None` if none reaches it, or
    /// where there is no reading or no map.
    fn candidate(&self, exits: Exits, costs: &Costs, agreement: f64) -> Option<Candidate> {
        let layers: Vec<usize> = exits.layers().collect();
        let mut places = Vec::with_capacity(layers.len());
        let Mapping { base, .. } = self.mapping;
        let stream = self.observations.streams.iter().find(|stream| stream.measure == base)?;
        for &layer in &layers {
            let place = self.observations.place(base, exits, layer)?;
            let map = self.maps.get(self.mapping, stream.memory.tests(exits, layer))?;
            places.push((place, map));
        }
        // Each token: the probability at each exit, and whether it agrees there.
        let tokens: Vec<Vec<Reading>> = self
            .observations
            .examples
            .iter()
            .flatten()
            .map(|readings| {
                let mapped = |&(place, map): &(usize, &calm_core::MonotoneMap)| {
                    let Reading { confidence, agrees } = readings[place];
                    Reading { confidence: map.at(confidence), agrees }
                };
                places.iter().map(mapped).collect()
            })
            .collect();
        // The share falls with the threshold, but for noise: the search halves the range between them.
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..14 {
            let middle = 0.5 * (low + high);
            if evaluate(&tokens, middle).0 >= agreement { high = middle } else { low = middle }
        }
        let (found, left_at) = evaluate(&tokens, high);
        if found < agreement {
            return None;
        }
        let count = tokens.len().max(1) as f64;
        let last = self.observations.num_layers;
        let (mut mean_layers, mut mean_tests, mut seconds) = (0.0, 0.0, 0.0);
        for (index, &share) in left_at.iter().enumerate() {
            let share = share as f64 / count;
            let layer = layers.get(index).copied().unwrap_or(last);
            let tests = (index + 1).min(layers.len());
            let prediction = if index < layers.len() { 0.0 } else { costs.prediction };
            let later = (tests - 1) as f64 * costs.later_test;
            mean_layers += share * layer as f64;
            mean_tests += share * tests as f64;
            seconds += share * (layer as f64 * costs.layer + costs.first_test + later + prediction);
        }
        Some(Candidate {
            measure: self.measure,
            exits,
            threshold: high,
            agreement: found,
            layers: mean_layers,
            tests: mean_tests,
            seconds: costs.base + seconds,
            full_seconds: costs.base + last as f64 * costs.layer + costs.prediction,
        })
    }
}

/// The share of tokens that are the last layer's at this threshold, and how many leave at each exit and, at
/// the end, at none.
fn evaluate(tokens: &[Vec<Reading>], threshold: f64) -> (f64, Vec<usize>) {
    let exits = tokens.first().map_or(0, Vec::len);
    let (mut agreeing, mut left_at) = (0, vec![0; exits + 1]);
    for readings in tokens {
        let exit = readings.iter().position(|reading| f64::from(reading.confidence) >= threshold);
        agreeing += usize::from(exit.is_none_or(|exit| readings[exit].agrees));
        left_at[exit.unwrap_or(exits)] += 1;
    }
    (agreeing as f64 / tokens.len().max(1) as f64, left_at)
}

/// What tokens take with each measure that has maps, measured by decoding some batches of sources.
///
/// # Errors
/// The engine fails, or a measure cannot be loaded, but for want of what the model does not have.
pub fn measure_costs(
    model: &dyn Model,
    sources: &[&[Token]],
    batch_size: usize,
    max_tokens: usize,
) -> Result<Vec<(&'static MeasureKind, Costs)>, Error> {
    let last = model.shape().num_layers;
    if last < 3 {
        return Err(Error::Data(format!("a decoder of {last} layers has nothing to choose exits from")));
    }
    let often = Exits::all_below(last).from(2);
    let once = often.up_to(2);
    let mut measures = Vec::new();
    for (kind, Mapping { base, .. }) in mapped_measures() {
        let Ok(loaded) = (base.load)(model) else { continue };
        // What cannot test at all of these layers has no cost that is measured here.
        let able = loaded.layers().unwrap_or(often);
        if often.layers().all(|layer| able.contains(layer)) {
            measures.push((kind, loaded));
        }
    }
    let (full, shallow) = (StaticDepth { layers: last }, StaticDepth { layers: 2 });
    let tested = |exits| measures.iter().map(move |(_, measure)| Tested { measure: &**measure, exits });
    let tested: Vec<Tested<'_>> = tested(once).chain(tested(often)).collect();
    let mut policies: Vec<&dyn Policy> = vec![&full, &shallow, &Unpredicted];
    policies.extend(tested.iter().map(|policy| policy as &dyn Policy));
    let seconds = Clock { model, sources, batch_size, max_tokens }.seconds(&policies)?;

    let [full, shallow, unpredicted] = [seconds[0], seconds[1], seconds[2]];
    let layer = ((full - shallow) / (last - 2) as f64).max(0.0);
    let prediction = (shallow - unpredicted).max(0.0);
    let base = (unpredicted - 2.0 * layer).max(0.0);
    let (once, often) = seconds[3..].split_at(measures.len());
    let costs = measures.iter().zip(once.iter().zip(often)).map(|((kind, _), (once, often))| {
        let first_test = (once - full).max(0.0);
        let later_test = ((often - once) / (last - 3).max(1) as f64).max(0.0);
        (*kind, Costs { base, layer, prediction, first_test, later_test })
    });
    Ok(costs.collect())
}

struct Clock<'a> {
    model: &'a dyn Model,
    sources: &'a [&'a [Token]],
    batch_size: usize,
    max_tokens: usize,
}

impl Clock<'_> {
    /// Seconds of a token under each policy, reading sources included. Outputs are all as long as they may
    /// be. Policies are measured in turns, so that a machine that slows down does so for all of them.
    fn seconds(&self, policies: &[&dyn Policy]) -> Result<Vec<f64>, Error> {
        let options = DecodeOptions { ignore_eos: true, ..DecodeOptions::new(self.max_tokens) };
        let mut best = vec![f64::INFINITY; policies.len()];
        for _ in 0..=REPETITIONS {
            for (policy, best) in policies.iter().zip(&mut best) {
                let started = Instant::now();
                for sources in self.sources.chunks(self.batch_size) {
                    let ReadBatch { prompt, .. } =
                        read_batch(self.model, sources).map_err(DecodeError::from)?;
                    decode(&*prompt, *policy, &options)?;
                }
                *best = best.min(started.elapsed().as_secs_f64());
            }
        }
        let tokens = (self.sources.len() * self.max_tokens).max(1) as f64;
        Ok(best.into_iter().map(|seconds| seconds / tokens).collect())
    }
}

/// Lets all tokens leave after layer 2, with a token that nobody has computed.
struct Unpredicted;

impl Policy for Unpredicted {
    fn begin_step(&self, _: usize) -> Box<dyn StepPolicy + '_> {
        Box::new(Unpredicted)
    }
}

impl StepPolicy for Unpredicted {
    fn decide(&mut self, layer: &mut Layer<'_>, decisions: &mut [Decision]) -> Result<(), DecodeError> {
        if layer.number() == 2 {
            decisions.fill(Decision { exit_layer: Some(2), token: Some(0), confidence: None });
        }
        Ok(())
    }
}

/// Tests at some layers, and lets no token leave.
struct Tested<'a> {
    measure: &'a dyn Measure,
    exits: Exits,
}

struct TestedStep<'a> {
    measure: Box<dyn StepMeasure + 'a>,
    exits: Exits,
}

impl Policy for Tested<'_> {
    fn begin_step(&self, _: usize) -> Box<dyn StepPolicy + '_> {
        Box::new(TestedStep { measure: self.measure.begin_step(), exits: self.exits })
    }
}

impl StepPolicy for TestedStep<'_> {
    fn decide(&mut self, layer: &mut Layer<'_>, _: &mut [Decision]) -> Result<(), DecodeError> {
        if !layer.is_last() && self.exits.contains(layer.number()) {
            self.measure.confidence(layer)?;
        }
        Ok(())
    }
}
