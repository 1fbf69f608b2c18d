//! What all stacks of layers have in common, whatever the network: self-attention, the feed-forward network,
//! and what goes through them.

use calm_checkpoint::FeedForward;
use calm_core::Entry;

use crate::attention::{Heads, Query, attend};
use crate::caches::KeysValues;
use crate::elementwise::RmsNorm;
use crate::linear::{Input, Linear, Output, Processor};
use crate::panels::PANEL;
use crate::positions::Positions;
use crate::states::States;

/// Tokens on their way through the layers of a stack, and what every layer needs for them.
pub(crate) struct Pass<'a> {
    pub(crate) processor: &'a Processor,
    /// Where the tokens stand in their row, of which a prompt is a part. An encoder has a single row, whose
    /// positions are those of the source.
    pub(crate) entries: &'a [Entry],
    /// The residual state of each.
    pub(crate) states: States<'a>,
    pub(crate) positions: &'a Positions,
    pub(crate) activations: &'a mut Activations,
}

/// What is between the products of a layer. Every layer uses the same allocations again.
#[derive(Default)]
pub(crate) struct Activations {
    /// [entries, queries, keys and values], each filled up to whole panels
    qkv: Vec<f32>,
    /// [entries, inner]
    pub(crate) q: Vec<f32>,
    /// [entries or source length, 2 * inner], each half filled up to whole panels
    pub(crate) kv: Vec<f32>,
    /// [entries, inner]
    pub(crate) context: Vec<f32>,
    /// [entries, d_ff]
    hidden: Vec<f32>,
}

pub(crate) struct SelfAttention {
    pub(crate) heads: Heads,
    pub(crate) norm: RmsNorm,
    /// Queries, keys and values in one product.
    pub(crate) qkv: Linear,
    /// The keys and values of the same matrix.
    pub(crate) kv: Linear,
    pub(crate) o: Linear,
}

/// The feed-forward network of a layer.
pub(crate) struct DenseReluDense {
    pub(crate) norm: RmsNorm,
    /// `wi`, or `wi_0` and `wi_1`.
    pub(crate) wi: Linear,
    pub(crate) wo: Linear,
    pub(crate) activation: FeedForward,
}

impl SelfAttention {
    /// Writes the keys and values of all tokens, then lets each attend to the positions that it sees. What it
    /// finds is added to its state.
    pub(crate) fn forward(&self, pass: &mut Pass<'_>, caches: &mut [KeysValues]) {
        let Pass { processor, entries, states, positions, activations } = pass;
        let Activations { qkv, context, .. } = &mut **activations;
        let [inner, kv_inner] = [self.heads.inner(), self.heads.kv_inner()];
        self.qkv.run(processor, Input::Normed(&self.norm, states), Output::Store(qkv));
        let width = self.qkv.outputs();
        for (entry, row) in entries.iter().zip(qkv.chunks_exact_mut(width)) {
            let [q, k, v] = parts(row, [inner, kv_inner, kv_inner]);
            positions.turn(entry.position, q);
            positions.turn(entry.position, k);
            caches[entry.row].write(entry.position, k, v);
        }
        let query = |(entry, row): (&Entry, _)| {
            let Entry { row: cache, position } = *entry;
            let q: &[f32] = row;
            let (length, bias) = positions.seen(position);
            Query { q: &q[..inner], cache: &caches[cache], length, bias }
        };
        let queries: Vec<Query<'_>> = entries.iter().zip(qkv.chunks_exact(width)).map(query).collect();
        attend(processor, self.heads, &queries, context);
        self.o.run(processor, Input::Rows(context), Output::Add(states));
    }

    /// Writes the keys and values of all tokens and leaves their states alone.
    pub(crate) fn propagate(&self, pass: &mut Pass<'_>, caches: &mut [KeysValues]) {
        let Pass { processor, entries, states, positions, activations } = pass;
        let kv = &mut activations.kv;
        self.kv.run(processor, Input::Normed(&self.norm, states), Output::Store(kv));
        for (entry, row) in entries.iter().zip(kv.chunks_exact_mut(self.kv.outputs())) {
            let [k, v] = parts(row, [self.heads.kv_inner(); 2]);
            positions.turn(entry.position, k);
            caches[entry.row].write(entry.position, k, v);
        }
    }
}

impl DenseReluDense {
    /// Adds what the network makes of each state to it.
    pub(crate) fn forward(&self, pass: &mut Pass<'_>) {
        let Pass { processor, states, activations, .. } = pass;
        let hidden = &mut activations.hidden;
        let activate = Output::Activate(self.activation, hidden);
        self.wi.run(processor, Input::Normed(&self.norm, states), activate);
        self.wo.run(processor, Input::Rows(hidden), Output::Add(states));
    }
}

/// What the matrices of [`Linear::parallel`] gave for one row, without what fills them up to whole panels.
pub(crate) fn parts<const N: usize>(row: &mut [f32], widths: [usize; N]) -> [&mut [f32]; N] {
    let mut rest = row;
    widths.map(|width| {
        let (part, after) = std::mem::take(&mut rest).split_at_mut(width.next_multiple_of(PANEL));
        rest = after;
        &mut part[..width]
    })
}
