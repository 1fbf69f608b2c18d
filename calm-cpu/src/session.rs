//! One decoding in progress: where the states and the K/V of each entry are.

use calm_core::profile::{self, Part};
use calm_core::{DecoderSession, EngineError, Entry, Matrix, Shortlist, Token, Top2, dot};

use crate::head::Room;
use crate::states::States;
use crate::t5::{Activations, LayerCaches, Pass, PositionBias, T5};

/// Positions that the first biases are computed for.
const FIRST_POSITIONS: usize = 32;

/// One decoding of a batch.
pub(crate) struct Session<'a> {
    model: &'a T5,
    /// The encoder's output of each row: [source length, d_model]
    sources: &'a [Vec<f32>],
    bias: PositionBias,
    memory: Memory,
}

/// What a decoding writes to. It reads nothing that an earlier one has left there.
#[derive(Default)]
pub(crate) struct Memory {
    /// By layer.
    caches: Vec<LayerCaches>,
    /// The state of each entry, from its embedding on: [positions, rows, d_model]
    states: Vec<f32>,
    /// Where the states of the current call lie.
    slots: Vec<usize>,
    activations: Activations,
    room: Room,
}

impl<'a> Session<'a> {
    pub(crate) fn new(model: &'a T5, sources: &'a [Vec<f32>]) -> Self {
        let (network, mut memory) = (&model.network, model.sessions.take());
        let blocks = &network.decoder.blocks;
        memory.caches.resize_with(blocks.len(), LayerCaches::default);
        for (caches, block) in memory.caches.iter_mut().zip(blocks) {
            caches.begin(block, sources.len());
        }
        let bias = network.decoder.position_bias(&network.config, FIRST_POSITIONS);
        Session { model, sources, bias, memory }
    }

    /// Finds the states of some entries.
    fn find(&mut self, entries: &[Entry]) {
        let (rows, slots) = (self.sources.len(), &mut self.memory.slots);
        slots.clear();
        slots.extend(entries.iter().map(|entry| entry.position * rows + entry.row));
    }

    /// The states of some entries, and room for what the head makes of them.
    fn states(&mut self, entries: &[Entry]) -> (States<'_>, &mut Room) {
        self.find(entries);
        let Memory { states, slots, room, .. } = &mut self.memory;
        (States::new(states, self.model.network.shape.d_model, slots), room)
    }

    /// Sends some entries through `layer`, whose caches come with them.
    fn pass<'s>(&'s mut self, layer: usize, entries: &'s [Entry]) -> (Pass<'s>, &'s mut LayerCaches) {
        self.find(entries);
        let Memory { caches, states, slots, activations, .. } = &mut self.memory;
        let pass = Pass {
            processor: &self.model.processor,
            entries,
            states: States::new(states, self.model.network.shape.d_model, slots),
            bias: &self.bias,
            activations,
        };
        (pass, &mut caches[layer - 1])
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.model.sessions.give(std::mem::take(&mut self.memory));
    }
}

impl DecoderSession for Session<'_> {
    fn embed(&mut self, entries: &[Entry], tokens: &[Token]) -> Result<(), EngineError> {
        let network = &self.model.network;
        let positions = entries.iter().map(|entry| entry.position + 1).max().unwrap_or(0);
        if positions > self.bias.length() {
            let length = positions.max(2 * self.bias.length());
            self.bias = network.decoder.position_bias(&network.config, length);
        }
        let size = positions * self.sources.len() * network.shape.d_model;
        let states = &mut self.memory.states;
        if size > states.len() {
            states.resize(size, 0.0);
        }
        let (mut states, _) = self.states(entries);
        for (index, &token) in tokens.iter().enumerate() {
            network.decoder.embed_tokens.read_row(token as usize, states.row_mut(index));
        }
        Ok(())
    }

    fn run_layer(&mut self, layer: usize, entries: &[Entry]) -> Result<(), EngineError> {
        let (block, sources) = (&self.model.network.decoder.blocks[layer - 1], self.sources);
        let (mut pass, caches) = self.pass(layer, entries);
        block.forward(&mut pass, sources, caches);
        Ok(())
    }

    fn propagate(&mut self, layer: usize, entries: &[Entry]) -> Result<(), EngineError> {
        let _part = profile::enter(Part::Propagation);
        let block = &self.model.network.decoder.blocks[layer - 1];
        let (mut pass, caches) = self.pass(layer, entries);
        block.self_attention.propagate(&mut pass, &mut caches.own);
        Ok(())
    }

    fn hidden(&mut self, entries: &[Entry]) -> Result<Matrix, EngineError> {
        let (states, _) = self.states(entries);
        Ok(Matrix { data: Vec::from_iter(states.rows()).concat(), columns: states.width() })
    }

    fn dot_hidden(
        &mut self,
        entries: &[Entry],
        vector: &[f32],
        products: &mut Vec<f64>,
    ) -> Result<(), EngineError> {
        let (states, _) = self.states(entries);
        products.clear();
        products.extend(states.rows().map(|state| dot(vector, state)));
        Ok(())
    }

    fn set_hidden(&mut self, entries: &[Entry], new: &Matrix) -> Result<(), EngineError> {
        let (mut states, _) = self.states(entries);
        for (index, state) in new.rows().enumerate() {
            states.row_mut(index).copy_from_slice(state);
        }
        Ok(())
    }

    fn logits(&mut self, entries: &[Entry]) -> Result<Matrix, EngineError> {
        let _part = profile::enter(Part::Head);
        let T5 { network, processor, .. } = self.model;
        let (states, room) = self.states(entries);
        let data = network.decoder.head.logits(processor, &states, room);
        Ok(Matrix { data, columns: network.shape.vocab_size })
    }

    fn logits_of(&mut self, states: &Matrix) -> Result<Matrix, EngineError> {
        let _part = profile::enter(Part::Head);
        let T5 { network, processor, .. } = self.model;
        let (mut data, slots) = given(states);
        let states = States::new(&mut data, states.columns, &slots);
        let data = network.decoder.head.logits(processor, &states, &mut self.memory.room);
        Ok(Matrix { data, columns: network.shape.vocab_size })
    }

    fn top2_of(&mut self, states: &Matrix) -> Result<Vec<Top2>, EngineError> {
        let _part = profile::enter(Part::Head);
        let T5 { network, processor, .. } = self.model;
        let (mut data, slots) = given(states);
        let states = States::new(&mut data, states.columns, &slots);
        Ok(network.decoder.head.top2(processor, &states, &mut self.memory.room))
    }

    fn top2(&mut self, entries: &[Entry]) -> Result<Vec<Top2>, EngineError> {
        let _part = profile::enter(Part::Head);
        let T5 { network, processor, .. } = self.model;
        let (states, room) = self.states(entries);
        Ok(network.decoder.head.top2(processor, &states, room))
    }

    fn estimated_top2(&mut self, entries: &[Entry]) -> Result<Vec<Top2>, EngineError> {
        let _part = profile::enter(Part::Head);
        let T5 { network, processor, .. } = self.model;
        let (states, room) = self.states(entries);
        Ok(network.decoder.head.estimated_top2(processor, &states, room))
    }

    fn shortlists(&mut self, entries: &[Entry], count: usize) -> Result<Vec<Shortlist>, EngineError> {
        let _part = profile::enter(Part::Head);
        let T5 { network, processor, .. } = self.model;
        let (states, room) = self.states(entries);
        Ok(network.decoder.head.shortlists(processor, &states, count, room))
    }

    fn predict(&mut self, entries: &[Entry]) -> Result<Vec<Token>, EngineError> {
        let _part = profile::enter(Part::Head);
        let T5 { network, processor, .. } = self.model;
        let (states, room) = self.states(entries);
        Ok(network.decoder.head.best(processor, &states, room))
    }

    fn best_tokens(&mut self, entries: &[Entry], count: usize) -> Result<Vec<Vec<Token>>, EngineError> {
        let _part = profile::enter(Part::Head);
        let T5 { network, processor, .. } = self.model;
        let (states, room) = self.states(entries);
        Ok(network.decoder.head.best_tokens(processor, &states, count, room))
    }

    fn top2_among(&mut self, entries: &[Entry], candidates: &[&[Token]]) -> Result<Vec<Top2>, EngineError> {
        let _part = profile::enter(Part::Head);
        let T5 { network, processor, .. } = self.model;
        let (states, room) = self.states(entries);
        Ok(network.decoder.head.top2_among(processor, &states, candidates, room))
    }

    fn copy_rows(&mut self, from: &[usize]) -> Result<(), EngineError> {
        self.memory.caches.iter_mut().for_each(|caches| caches.copy_rows(from));
        Ok(())
    }

    fn crop(&mut self, _row: usize, _length: usize) -> Result<(), EngineError> {
        // A forgotten entry needs no erasing. Tokens attend to no position behind their own, so its K/V and
        // its state are read again only after the position was embedded and run, or propagated, anew.
        Ok(())
    }
}

/// A copy of states that are no entry's, and where each of them lies.
fn given(states: &Matrix) -> (Vec<f32>, Vec<usize>) {
    (states.data.clone(), (0..states.num_rows()).collect())
}
