//! One decoding in progress: the K/V caches and the states of the current step.

use calm_core::{CacheEntry, DecoderSession, Matrix, Token, Top2};

use crate::Error;
use crate::attention::{Bias, KeysValues, Query, attend};
use crate::linear::Output;
use crate::t5::{Encoded, T5};

/// One decoding of a batch.
pub struct Session<'a> {
    model: &'a T5,
    encoded: Encoded,
    /// By layer and row, empty until a token reaches the layer or stands in for one that does.
    self_kv: Vec<Vec<KeysValues>>,
    /// By layer and row, empty until the row's first token reaches the layer.
    cross_kv: Vec<Vec<KeysValues>>,
    /// By row, the states that stand for the missing ones above an early exit: [positions, d_model]
    kept_states: Vec<Vec<f32>>,
    /// [heads, bias_width], farthest distance first
    bias: Vec<f32>,
    bias_width: usize,
    position: usize,
    /// States after each layer run in this step, from the embedding on.
    step: Vec<LayerState>,
    room: Room,
}

#[derive(Default)]
struct LayerState {
    rows: Vec<usize>,
    /// [rows.len(), d_model]
    x: Vec<f32>,
}

/// Allocations that are used again in every layer.
#[derive(Default)]
struct Room {
    q: Vec<f32>,
    kv: Vec<f32>,
    context: Vec<f32>,
    hidden: Vec<f32>,
    states: Vec<f32>,
    logits: Vec<f32>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(model: &'a T5, encoded: &Encoded) -> Self {
        let (network, rows) = (&model.network, encoded.states.len());
        let layers = network.decoder.blocks.len();
        Session {
            encoded: encoded.clone(),
            self_kv: vec![vec![KeysValues::default(); rows]; layers],
            cross_kv: vec![vec![KeysValues::default(); rows]; layers],
            kept_states: vec![Vec::new(); rows],
            bias: Vec::new(),
            bias_width: 0,
            position: 0,
            step: (0..=layers).map(|_| LayerState::default()).collect(),
            room: Room::default(),
            model,
        }
    }

    /// Projects the encoder's output of those rows that reach `layer` for the first time.
    fn fill_cross(&mut self, layer: usize, rows: &[usize]) {
        let network = &self.model.network;
        let inner = network.shape.inner;
        let attention = &network.decoder.blocks[layer - 1].cross_attention;
        for &row in rows {
            let cache = &mut self.cross_kv[layer - 1][row];
            if cache.is_empty() {
                let states = &self.encoded.states[row];
                let length = states.len() / network.shape.d_model;
                *cache = KeysValues::new(network.heads, length);
                self.room.kv.resize(length * 2 * inner, 0.0);
                attention.kv.run(&self.model.processor, None, states, Output::Store(&mut self.room.kv));
                for (position, kv) in self.room.kv.chunks_exact(2 * inner).enumerate() {
                    cache.write(network.heads, position, kv);
                }
            }
        }
    }

    /// Writes the projections in `room.kv` to the self-attention cache of `layer`, one for each entry.
    fn write_self(&mut self, layer: usize, entries: impl Iterator<Item = CacheEntry>) {
        let (heads, inner) = (self.model.network.heads, self.model.network.shape.inner);
        for (entry, kv) in entries.zip(self.room.kv.chunks_exact(2 * inner)) {
            self.self_kv[layer - 1][entry.row].write(heads, entry.position, kv);
        }
    }

    /// Copies the states after `layer` of rows that ran it: [rows.len(), d_model]
    fn read_states(&self, layer: usize, rows: &[usize], to: &mut Vec<f32>) {
        let LayerState { rows: have, x } = &self.step[layer];
        let width = self.model.network.shape.d_model;
        to.clear();
        // Both lists ascend.
        let mut place = 0;
        for &row in rows {
            while have[place] != row {
                place += 1;
            }
            to.extend_from_slice(&x[place * width..][..width]);
        }
    }

    fn kept_state(&mut self, entry: CacheEntry) -> &mut [f32] {
        let width = self.model.network.shape.d_model;
        let states = &mut self.kept_states[entry.row];
        let end = (entry.position + 1) * width;
        if states.len() < end {
            states.resize(end, 0.0);
        }
        &mut states[end - width..end]
    }

    /// Calls `f` with the states after `layer` of some rows and room for logits.
    fn with_states<T>(
        &mut self,
        layer: usize,
        rows: &[usize],
        f: impl FnOnce(&T5, &[f32], &mut Vec<f32>) -> T,
    ) -> T {
        let mut room = std::mem::take(&mut self.room);
        self.read_states(layer, rows, &mut room.states);
        let result = f(self.model, &room.states, &mut room.logits);
        self.room = room;
        result
    }
}

impl DecoderSession for Session<'_> {
    type Error = Error;

    fn begin_step(&mut self, position: usize, rows: &[usize], tokens: &[Token]) -> Result<(), Error> {
        self.position = position;
        if position >= self.bias_width {
            self.bias_width = (2 * self.bias_width).max(position + 1).max(32);
            self.bias = self.model.network.causal_bias(self.bias_width);
        }
        let embedded = &mut self.step[0];
        embedded.rows.clear();
        embedded.rows.extend_from_slice(rows);
        self.model.network.embed(tokens, &mut embedded.x);
        Ok(())
    }

    fn run_layer(&mut self, layer: usize, rows: &[usize]) -> Result<(), Error> {
        let model = self.model;
        let (network, processor) = (&*model.network, &model.processor);
        let (heads, inner, position) = (network.heads, network.shape.inner, self.position);
        let block = &network.decoder.blocks[layer - 1];
        let mut state = std::mem::take(&mut self.step[layer]);
        self.read_states(layer - 1, rows, &mut state.x);
        state.rows.clear();
        state.rows.extend_from_slice(rows);
        let x = &mut state.x;
        self.room.q.resize(rows.len() * inner, 0.0);
        self.room.context.resize(rows.len() * inner, 0.0);

        let attention = &block.self_attention;
        attention.q.run(processor, Some(&attention.norm), x, Output::Store(&mut self.room.q));
        self.room.kv.resize(rows.len() * 2 * inner, 0.0);
        attention.kv.run(processor, Some(&attention.norm), x, Output::Store(&mut self.room.kv));
        self.write_self(layer, rows.iter().map(|&row| CacheEntry { row, position }));
        let bias = Bias { table: &self.bias, width: self.bias_width, start: self.bias_width - position - 1 };
        let self_queries: Vec<Query<'_>> = rows
            .iter()
            .zip(self.room.q.chunks_exact(inner))
            .map(|(&row, q)| {
                let cache = &self.self_kv[layer - 1][row];
                Query { q, cache, length: position + 1, bias: Some(bias) }
            })
            .collect();
        attend(processor, heads, &self_queries, &mut self.room.context);
        attention.o.run(processor, None, &self.room.context, Output::Add(x));

        self.fill_cross(layer, rows);
        let attention = &block.cross_attention;
        attention.q.run(processor, Some(&attention.norm), x, Output::Store(&mut self.room.q));
        let cross_queries: Vec<Query<'_>> = rows
            .iter()
            .zip(self.room.q.chunks_exact(inner))
            .map(|(&row, q)| {
                let length = self.encoded.states[row].len() / network.shape.d_model;
                Query { q, cache: &self.cross_kv[layer - 1][row], length, bias: None }
            })
            .collect();
        attend(processor, heads, &cross_queries, &mut self.room.context);
        attention.o.run(processor, None, &self.room.context, Output::Add(x));

        block.feed_forward.run(processor, x, &mut self.room.hidden);
        self.step[layer] = state;
        Ok(())
    }

    fn hidden(&mut self, layer: usize, rows: &[usize]) -> Result<Matrix, Error> {
        let mut matrix = Matrix { data: Vec::new(), columns: self.model.network.shape.d_model };
        self.read_states(layer, rows, &mut matrix.data);
        Ok(matrix)
    }

    fn logits(&mut self, layer: usize, rows: &[usize]) -> Result<Matrix, Error> {
        let columns = self.model.network.shape.vocab_size;
        let data = self.with_states(layer, rows, |model, states, _| {
            model.network.decoder.head.logits(&model.processor, states)
        });
        Ok(Matrix { data, columns })
    }

    fn top2(&mut self, layer: usize, rows: &[usize]) -> Result<Vec<Top2>, Error> {
        Ok(self.with_states(layer, rows, |model, states, room| {
            model.network.decoder.head.top2(&model.processor, states, room)
        }))
    }

    fn best_tokens(&mut self, layer: usize, rows: &[usize], count: usize) -> Result<Vec<Vec<Token>>, Error> {
        Ok(self.with_states(layer, rows, |model, states, room| {
            model.network.decoder.head.best_tokens(&model.processor, states, count, room)
        }))
    }

    fn top2_among(
        &mut self,
        layer: usize,
        rows: &[usize],
        candidates: &[&[Token]],
    ) -> Result<Vec<Top2>, Error> {
        Ok(self.with_states(layer, rows, |model, states, _| {
            model.network.decoder.head.top2_among(&model.processor, states, candidates)
        }))
    }

    fn keep(&mut self, layer: usize, rows: &[usize]) -> Result<(), Error> {
        let mut states = std::mem::take(&mut self.room.states);
        self.read_states(layer, rows, &mut states);
        let width = self.model.network.shape.d_model;
        for (&row, state) in rows.iter().zip(states.chunks_exact(width)) {
            let position = self.position;
            self.kept_state(CacheEntry { row, position }).copy_from_slice(state);
        }
        self.room.states = states;
        Ok(())
    }

    fn predict(&mut self, rows: &[usize]) -> Result<Vec<Token>, Error> {
        let mut room = std::mem::take(&mut self.room);
        room.states.clear();
        for &row in rows {
            let position = self.position;
            room.states.extend_from_slice(self.kept_state(CacheEntry { row, position }));
        }
        let head = &self.model.network.decoder.head;
        let tokens = head.best(&self.model.processor, &room.states, &mut room.logits);
        self.room = room;
        Ok(tokens)
    }

    fn propagate(&mut self, layer: usize, entries: &[CacheEntry]) -> Result<(), Error> {
        let mut room = std::mem::take(&mut self.room);
        room.states.clear();
        for &entry in entries {
            room.states.extend_from_slice(self.kept_state(entry));
        }
        let attention = &self.model.network.decoder.blocks[layer - 1].self_attention;
        room.kv.resize(entries.len() * 2 * self.model.network.shape.inner, 0.0);
        attention.kv.run(
            &self.model.processor,
            Some(&attention.norm),
            &room.states,
            Output::Store(&mut room.kv),
        );
        self.room = room;
        self.write_self(layer, entries.iter().copied());
        Ok(())
    }
}
