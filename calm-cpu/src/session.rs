//! One decoding in progress: where the states and the K/V of each entry are.

use calm_core::profile::{self, Part};
use calm_core::{BackboneShape, DecoderSession, EngineError, Entry, Matrix, Shortlist, Token, Top2, dot};

use crate::caches::LayerCaches;
use crate::head::{Head, Room};
use crate::layers::{Activations, Pass, SelfAttention};
use crate::linear::Processor;
use crate::pool::Pool;
use crate::positions::Positions;
use crate::states::States;

/// Positions that a decoding is ready for when it begins.
const FIRST_POSITIONS: usize = 32;

/// A network's decoder, with whatever it has of the sources of a batch: what a session leaves to it.
pub(crate) trait Decoder {
    fn shape(&self) -> &BackboneShape;

    fn head(&self) -> &Head;

    /// The head that exit heads end in.
    fn exit_head(&self) -> &Head;

    /// Reads the embedding of a token: [d_model]
    fn embed(&self, token: Token, state: &mut [f32]);

    /// What attention knows of the positions below `length`.
    fn positions(&self, length: usize) -> Positions;

    fn self_attention(&self, layer: usize) -> &SelfAttention;

    /// Takes tokens through a layer.
    fn run_layer(&self, layer: usize, pass: &mut Pass<'_>, caches: &mut LayerCaches);
}

/// One decoding of a batch.
pub(crate) struct Session<'a, D> {
    decoder: D,
    processor: &'a Processor,
    /// Number of positions of each row in front of its output.
    before: Vec<usize>,
    positions: Positions,
    memory: Memory,
    /// Who gets the memory back.
    home: &'a Pool<Memory>,
}

/// What a decoding writes to. It reads nothing that an earlier one has left there, but for the K/V of
/// prompts.
#[derive(Default)]
pub(crate) struct Memory {
    /// By layer.
    pub(crate) caches: Vec<LayerCaches>,
    /// The state of each entry, from its embedding on: [positions, rows, d_model]
    pub(crate) states: Vec<f32>,
    /// Where the states of the current call lie.
    pub(crate) slots: Vec<usize>,
    /// The entries of the current call, as positions of their rows.
    pub(crate) entries: Vec<Entry>,
    pub(crate) activations: Activations,
    room: Room,
}

impl<'a, D: Decoder> Session<'a, D> {
    /// Begins a decoding. The memory has caches for all rows.
    pub(crate) fn new(
        decoder: D,
        processor: &'a Processor,
        before: Vec<usize>,
        memory: Memory,
        home: &'a Pool<Memory>,
    ) -> Self {
        let first = before.iter().max().copied().unwrap_or(0) + FIRST_POSITIONS;
        let positions = decoder.positions(first);
        Session { decoder, processor, before, positions, memory, home }
    }

    /// Finds the states of some entries.
    fn find(&mut self, entries: &[Entry]) {
        let (rows, slots) = (self.before.len(), &mut self.memory.slots);
        slots.clear();
        slots.extend(entries.iter().map(|entry| entry.position * rows + entry.row));
    }

    /// Calls `f` with the states of some entries, and with what belongs to the head.
    fn with_head<T>(
        &mut self,
        entries: &[Entry],
        f: impl FnOnce(&Head, &Processor, &States<'_>, &mut Room) -> T,
    ) -> T {
        let _part = profile::enter(Part::Head);
        self.find(entries);
        let Memory { states, slots, room, .. } = &mut self.memory;
        let states = States::new(states, self.decoder.shape().d_model, slots);
        f(self.decoder.head(), self.processor, &states, room)
    }

    /// The states of some entries.
    fn states(&mut self, entries: &[Entry]) -> States<'_> {
        self.find(entries);
        let Memory { states, slots, .. } = &mut self.memory;
        States::new(states, self.decoder.shape().d_model, slots)
    }

    /// Calls `f` with some entries on their way through `layer`, and with its caches.
    fn with_pass(
        &mut self,
        layer: usize,
        entries: &[Entry],
        f: impl FnOnce(&D, &mut Pass<'_>, &mut LayerCaches),
    ) {
        self.find(entries);
        let before = &self.before;
        let Memory { caches, states, slots, activations, entries: placed, .. } = &mut self.memory;
        placed.clear();
        placed.extend(
            entries.iter().map(|&Entry { row, position }| Entry { row, position: before[row] + position }),
        );
        let mut pass = Pass {
            processor: self.processor,
            entries: placed,
            states: States::new(states, self.decoder.shape().d_model, slots),
            positions: &self.positions,
            activations,
        };
        f(&self.decoder, &mut pass, &mut caches[layer - 1]);
    }
}

impl<D> Drop for Session<'_, D> {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.memory));
    }
}

impl<D: Decoder> DecoderSession for Session<'_, D> {
    fn embed(&mut self, entries: &[Entry], tokens: &[Token]) -> Result<(), EngineError> {
        let last = |entry: &Entry| self.before[entry.row] + entry.position + 1;
        let length = entries.iter().map(last).max().unwrap_or(0);
        if length > self.positions.length() {
            self.positions = self.decoder.positions(length.max(2 * self.positions.length()));
        }
        let positions = entries.iter().map(|entry| entry.position + 1).max().unwrap_or(0);
        let size = positions * self.before.len() * self.decoder.shape().d_model;
        if size > self.memory.states.len() {
            self.memory.states.resize(size, 0.0);
        }
        self.find(entries);
        let Memory { states, slots, .. } = &mut self.memory;
        let mut states = States::new(states, self.decoder.shape().d_model, slots);
        for (index, &token) in tokens.iter().enumerate() {
            self.decoder.embed(token, states.row_mut(index));
        }
        Ok(())
    }

    fn run_layer(&mut self, layer: usize, entries: &[Entry]) -> Result<(), EngineError> {
        self.with_pass(layer, entries, |decoder, pass, caches| decoder.run_layer(layer, pass, caches));
        Ok(())
    }

    fn propagate(&mut self, layer: usize, entries: &[Entry]) -> Result<(), EngineError> {
        let _part = profile::enter(Part::Propagation);
        self.with_pass(layer, entries, |decoder, pass, caches| {
            decoder.self_attention(layer).propagate(pass, &mut caches.own);
        });
        Ok(())
    }

    fn copy_keys_values(&mut self, layer: usize, entries: &[Entry]) -> Result<(), EngineError> {
        let _part = profile::enter(Part::Propagation);
        let [below, caches] = &mut self.memory.caches[layer - 2..layer] else { return Ok(()) };
        for &Entry { row, position } in entries {
            let position = self.before[row] + position;
            let [key, value] = below.own[row].read(position);
            caches.own[row].write(position, &key, &value);
        }
        Ok(())
    }

    fn hidden(&mut self, entries: &[Entry]) -> Result<Matrix, EngineError> {
        let states = self.states(entries);
        Ok(Matrix { data: Vec::from_iter(states.rows()).concat(), columns: states.width() })
    }

    fn dot_hidden(
        &mut self,
        entries: &[Entry],
        vector: &[f32],
        products: &mut Vec<f64>,
    ) -> Result<(), EngineError> {
        let states = self.states(entries);
        products.clear();
        products.extend(states.rows().map(|state| dot(vector, state)));
        Ok(())
    }

    fn set_hidden(&mut self, entries: &[Entry], new: &Matrix) -> Result<(), EngineError> {
        let mut states = self.states(entries);
        for (index, state) in new.rows().enumerate() {
            states.row_mut(index).copy_from_slice(state);
        }
        Ok(())
    }

    fn logits(&mut self, entries: &[Entry]) -> Result<Matrix, EngineError> {
        let columns = self.decoder.shape().vocab_size;
        let data = self.with_head(entries, Head::logits);
        Ok(Matrix { data, columns })
    }

    fn logits_of(&mut self, states: &Matrix) -> Result<Matrix, EngineError> {
        let _part = profile::enter(Part::Head);
        let (mut data, slots) = given(states);
        let states = States::new(&mut data, states.columns, &slots);
        let head = self.decoder.exit_head();
        let data = head.logits(self.processor, &states, &mut self.memory.room);
        Ok(Matrix { data, columns: head.vocab_size() })
    }

    fn top2_of(&mut self, states: &Matrix) -> Result<Vec<Top2>, EngineError> {
        let _part = profile::enter(Part::Head);
        let (mut data, slots) = given(states);
        let states = States::new(&mut data, states.columns, &slots);
        Ok(self.decoder.exit_head().top2(self.processor, &states, &mut self.memory.room))
    }

    fn top2(&mut self, entries: &[Entry]) -> Result<Vec<Top2>, EngineError> {
        Ok(self.with_head(entries, Head::top2))
    }

    fn estimated_top2(&mut self, entries: &[Entry]) -> Result<Vec<Top2>, EngineError> {
        Ok(self.with_head(entries, Head::estimated_top2))
    }

    fn shortlists(&mut self, entries: &[Entry], count: usize) -> Result<Vec<Shortlist>, EngineError> {
        Ok(self.with_head(entries, |head, processor, states, room| {
            head.shortlists(processor, states, count, room)
        }))
    }

    fn predict(&mut self, entries: &[Entry]) -> Result<Vec<Token>, EngineError> {
        Ok(self.with_head(entries, Head::best))
    }

    fn best_tokens(&mut self, entries: &[Entry], count: usize) -> Result<Vec<Vec<Token>>, EngineError> {
        Ok(self.with_head(entries, |head, processor, states, room| {
            head.best_tokens(processor, states, count, room)
        }))
    }

    fn top2_among(&mut self, entries: &[Entry], candidates: &[&[Token]]) -> Result<Vec<Top2>, EngineError> {
        Ok(self.with_head(entries, |head, processor, states, room| {
            head.top2_among(processor, states, candidates, room)
        }))
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
