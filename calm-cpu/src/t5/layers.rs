//! What encoder and decoder have in common: self-attention, the feed-forward network, and what goes through
//! them.

use calm_checkpoint::{Direction, FeedForward, T5Config, bucket};
use calm_core::Entry;

use crate::attention::{Bias, Heads, KeysValues, Query, attend};
use crate::elementwise::RmsNorm;
use crate::linear::{Input, Linear, Output, Processor};
use crate::simd::LANES;
use crate::states::States;

/// Tokens on their way through the layers of a stack, and what every layer needs for them.
pub(crate) struct Pass<'a> {
    pub(crate) processor: &'a Processor,
    /// Where the tokens stand. The encoder has a single row, whose positions are those of the source.
    pub(crate) entries: &'a [Entry],
    /// The residual state of each.
    pub(crate) states: States<'a>,
    pub(crate) bias: &'a PositionBias,
    pub(crate) activations: &'a mut Activations,
}

/// What is between the products of a layer. Every layer uses the same allocations again.
#[derive(Default)]
pub(crate) struct Activations {
    /// [entries, 3 * inner], each third filled up to whole panels
    qkv: Vec<f32>,
    /// [entries, inner]
    pub(super) q: Vec<f32>,
    /// [entries or source length, 2 * inner], each half filled up to whole panels
    pub(super) kv: Vec<f32>,
    /// [entries, inner]
    pub(super) context: Vec<f32>,
    /// [entries, d_ff]
    hidden: Vec<f32>,
}

pub(crate) struct SelfAttention {
    pub(super) heads: Heads,
    pub(super) norm: RmsNorm,
    /// Queries, keys and values in one product.
    pub(super) qkv: Linear,
    /// The keys and values of the same matrix.
    pub(super) kv: Linear,
    pub(super) o: Linear,
}

pub(crate) struct DenseReluDense {
    pub(super) norm: RmsNorm,
    /// `wi`, or `wi_0` and `wi_1`.
    pub(super) wi: Linear,
    pub(super) wo: Linear,
    pub(super) activation: FeedForward,
}

impl SelfAttention {
    /// Writes the keys and values of all tokens, then lets each attend to the positions that it sees. What it
    /// finds is added to its state.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, caches: &mut [KeysValues]) {
        let Pass { processor, entries, states, bias, activations } = pass;
        let Activations { qkv, context, .. } = &mut **activations;
        self.qkv.run(processor, Input::Normed(&self.norm, states), Output::Store(qkv));
        // [entries, 3 * inner] -> three times [entries, inner]
        let rows = || entries.iter().zip(qkv.chunks_exact(self.qkv.outputs()));
        for (entry, row) in rows() {
            let [_, k, v] = parts(row, self.heads.inner());
            caches[entry.row].write(entry.position, k, v);
        }
        let query = |(entry, row): (&Entry, _)| {
            let Entry { row: cache, position } = *entry;
            let [q, _, _] = parts(row, self.heads.inner());
            let (length, bias) = bias.of(position);
            Query { q, cache: &caches[cache], length, bias: Some(bias) }
        };
        let queries: Vec<Query<'_>> = rows().map(query).collect();
        attend(processor, self.heads, &queries, context);
        self.o.run(processor, Input::Rows(context), Output::Add(states));
    }

    /// Writes the keys and values of all tokens and leaves their states alone.
    pub(crate) fn propagate(&self, pass: &mut Pass<'_>, caches: &mut [KeysValues]) {
        let Pass { processor, entries, states, activations, .. } = pass;
        let kv = &mut activations.kv;
        self.kv.run(processor, Input::Normed(&self.norm, states), Output::Store(kv));
        // [entries, 2 * inner] -> twice [entries, inner]
        for (entry, row) in entries.iter().zip(kv.chunks_exact(self.kv.outputs())) {
            let [k, v] = parts(row, self.heads.inner());
            caches[entry.row].write(entry.position, k, v);
        }
    }
}

impl DenseReluDense {
    /// Adds what the network makes of each state to it.
    pub(super) fn forward(&self, pass: &mut Pass<'_>) {
        let Pass { processor, states, activations, .. } = pass;
        let hidden = &mut activations.hidden;
        let activate = Output::Activate(self.activation, hidden);
        self.wi.run(processor, Input::Normed(&self.norm, states), activate);
        self.wo.run(processor, Input::Rows(hidden), Output::Add(states));
    }
}

/// What the matrices of [`Linear::parallel`] gave for one row, without what fills them up: `width` of each.
pub(super) fn parts<const N: usize>(row: &[f32], width: usize) -> [&[f32]; N] {
    let stride = row.len() / N;
    std::array::from_fn(|part| &row[part * stride..][..width])
}

/// What is added to the scores of self-attention, by the distance from the query to the key.
pub(crate) struct PositionBias {
    direction: Direction,
    /// [heads, width], each row with a vector of zeros at its end
    table: Vec<f32>,
    width: usize,
    /// Positions that there are biases for.
    length: usize,
}

impl PositionBias {
    /// Reads the biases of positions below `length` from a table of learned ones, [buckets, heads].
    pub(super) fn new(config: &T5Config, direction: Direction, learned: &[f32], length: usize) -> Self {
        let last = length as i64 - 1;
        let farthest = match direction {
            Direction::Causal => 0,
            Direction::Bidirectional => last,
        };
        let buckets: Vec<usize> =
            (-last..=farthest).map(|distance| bucket(config, direction, distance) as usize).collect();
        let heads = config.num_heads as usize;
        // [buckets, heads] -> [heads, distances]
        let of_head = |head| {
            let biases = buckets.iter().map(move |bucket| learned[bucket * heads + head]);
            biases.chain([0.0; LANES])
        };
        let table = (0..heads).flat_map(of_head).collect();
        PositionBias { direction, table, width: buckets.len() + LANES, length }
    }

    /// Positions that there are biases for.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// How many positions the query at `position` sees, and their biases.
    fn of(&self, position: usize) -> (usize, Bias<'_>) {
        let seen = match self.direction {
            Direction::Causal => position + 1,
            Direction::Bidirectional => self.length,
        };
        // The first position is `position` before the query, and distance 0 is in column `length - 1`.
        (seen, Bias { table: &self.table, width: self.width, start: self.length - 1 - position })
    }
}
