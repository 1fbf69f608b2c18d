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
    /// By layer.
    caches: Vec<LayerCaches>,
    /// The state of each entry, from its embedding on: [positions, rows, d_model]
    states: Vec<f32>,
    /// Where the states of the current call lie.
    slots: Vec<usize>,
    bias: PositionBias,
    activations: Activations,
    room: Room,
}

impl<'a> Session<'a> {
    pub(crate) fn new(model: &'a T5, sources: &'a [Vec<f32>]) -> Self {
        let network = &model.network;
        let caches = network.decoder.blocks.iter().map(|block| LayerCaches::new(block, sources.len()));
        Session {
            caches: caches.collect(),
            states: Vec::new(),
            slots: Vec::new(),
            bias: network.decoder.position_bias(&network.config, FIRST_POSITIONS),
            activations: Activations::default(),
            room: Room::default(),
            model,
            sources,
        }
    }

    /// Finds the states of some entries.
    fn find(&mut self, entries: &[Entry]) {
        let rows = self.sources.len();
        self.slots.clear();
        self.slots.extend(entries.iter().map(|entry| entry.position * rows + entry.row));
    }

    /// The states of some entries, and room for what the head makes of them.
    fn states(&mut self, entries: &[Entry]) -> (States<'_>, &mut Room) {
        self.find(entries);
        (States::new(&mut self.states, self.model.network.shape.d_model, &self.slots), &mut self.room)
    }

    /// Sends some entries through `layer`, whose caches come with them.
    fn pass<'s>(&'s mut self, layer: usize, entries: &'s [Entry]) -> (Pass<'s>, &'s mut LayerCaches) {
        self.find(entries);
        let pass = Pass {
            processor: &self.model.processor,
            entries,
            states: States::new(&mut self.states, self.model.network.shape.d_model, &self.slots),
            bias: &self.bias,
            activations: &mut self.activations,
        };
        (pass, &mut self.caches[layer - 1])
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
        if size > self.states.len() {
            self.states.resize(size, 0.0);
        }
        let (mut states, _) = self.states(entries);
        for (index, &token) in tokens.iter().enumerate() {
            network.shared.read_row(token as usize, states.row_mut(index));
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
        let T5 { network, processor } = self.model;
        let (states, room) = self.states(entries);
        let data = network.decoder.head.logits(processor, &states, room);
        Ok(Matrix { data, columns: network.shape.vocab_size })
    }

    fn top2(&mut self, entries: &[Entry]) -> Result<Vec<Top2>, EngineError> {
        let _part = profile::enter(Part::Head);
        let T5 { network, processor } = self.model;
        let (states, room) = self.states(entries);
        Ok(network.decoder.head.top2(processor, &states, room))
    }

    fn estimated_top2(&mut self, entries: &[Entry]) -> Result<Vec<Top2>, EngineError> {
        let _part = profile::enter(Part::Head);
        let T5 { network, processor } = self.model;
        let (states, room) = self.states(entries);
        Ok(network.decoder.head.estimated_top2(processor, &states, room))
    }

    fn shortlists(&mut self, entries: &[Entry], count: usize) -> Result<Vec<Shortlist>, EngineError> {
        let _part = profile::enter(Part::Head);
        let T5 { network, processor } = self.model;
        let (states, room) = self.states(entries);
        Ok(network.decoder.head.shortlists(processor, &states, count, room))
    }

    fn predict(&mut self, entries: &[Entry]) -> Result<Vec<Token>, EngineError> {
        let _part = profile::enter(Part::Head);
        let T5 { network, processor } = self.model;
        let (states, room) = self.states(entries);
        Ok(network.decoder.head.best(processor, &states, room))
    }

    fn best_tokens(&mut self, entries: &[Entry], count: usize) -> Result<Vec<Vec<Token>>, EngineError> {
        let _part = profile::enter(Part::Head);
        let T5 { network, processor } = self.model;
        let (states, room) = self.states(entries);
        Ok(network.decoder.head.best_tokens(processor, &states, count, room))
    }

    fn top2_among(&mut self, entries: &[Entry], candidates: &[&[Token]]) -> Result<Vec<Top2>, EngineError> {
        let _part = profile::enter(Part::Head);
        let T5 { network, processor } = self.model;
        let (states, room) = self.states(entries);
        Ok(network.decoder.head.top2_among(processor, &states, candidates, room))
    }

    fn crop(&mut self, _row: usize, _length: usize) -> Result<(), EngineError> {
        // A forgotten entry needs no erasing. Tokens attend to no position behind their own, so its K/V and
        // its state are read again only after the position was embedded and run, or propagated, anew.
        Ok(())
    }
}
