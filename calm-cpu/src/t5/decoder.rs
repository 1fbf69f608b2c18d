//! The decoder, one layer at a time.

use calm_checkpoint::{Direction, T5Config};
use calm_core::profile::{self, Part};

use super::layers::{Activations, DenseReluDense, Pass, PositionBias, SelfAttention, parts};
use crate::attention::{Heads, KeysValues, Query, attend};
use crate::elementwise::RmsNorm;
use crate::head::Head;
use crate::linear::{Input, Linear, Output};
use crate::weights::Stored;

pub(crate) struct Decoder {
    /// [vocab_size, d_model]
    pub(crate) embed_tokens: Stored,
    pub(crate) blocks: Vec<DecoderBlock>,
    /// [buckets, heads]
    pub(super) relative_attention_bias: Stored,
    /// With the final norm.
    pub(crate) head: Head,
}

pub(crate) struct DecoderBlock {
    pub(crate) self_attention: SelfAttention,
    pub(super) cross_attention: EncDecAttention,
    pub(super) feed_forward: DenseReluDense,
}

pub(super) struct EncDecAttention {
    pub(super) heads: Heads,
    pub(super) norm: RmsNorm,
    pub(super) q: Linear,
    /// Keys and values of the encoder's output in one product.
    pub(super) kv: Linear,
    pub(super) o: Linear,
}

/// Keys and values of one layer, by row. There may be more rows than those of the batch.
#[derive(Default)]
pub(crate) struct LayerCaches {
    /// Keys and values of the output. A token finds those of all positions up to its own, which have been
    /// written since the decoding began.
    pub(crate) own: Vec<KeysValues>,
    /// Keys and values of the source, empty until the row's first token reaches the layer.
    source: Vec<KeysValues>,
}

impl Decoder {
    /// The biases of positions below `length`.
    pub(crate) fn position_bias(&self, config: &T5Config, length: usize) -> PositionBias {
        PositionBias::new(config, Direction::Causal, &self.relative_attention_bias.to_vec(), length)
    }
}

impl DecoderBlock {
    /// Takes tokens through the layer. `sources` are the encoder's outputs, by row.
    pub(crate) fn forward(&self, pass: &mut Pass<'_>, sources: &[Vec<f32>], caches: &mut LayerCaches) {
        let LayerCaches { own, source } = caches;
        profile::within(Part::SelfAttention, || self.self_attention.forward(pass, own));
        profile::within(Part::CrossAttention, || self.cross_attention.forward(pass, sources, source));
        profile::within(Part::FeedForward, || self.feed_forward.forward(pass));
    }

    /// Bytes of the weights that a token reads: all but the projections of the encoder's output.
    pub(super) fn bytes(&self) -> usize {
        let DecoderBlock { self_attention, cross_attention, feed_forward } = self;
        let matrices = [
            &self_attention.qkv,
            &self_attention.o,
            &cross_attention.q,
            &cross_attention.o,
            &feed_forward.wi,
            &feed_forward.wo,
        ];
        matrices.into_iter().map(Linear::bytes).sum()
    }
}

impl EncDecAttention {
    /// Lets each token attend to all of its row's source. What it finds is added to its state.
    fn forward(&self, pass: &mut Pass<'_>, sources: &[Vec<f32>], caches: &mut [KeysValues]) {
        self.project(pass, sources, caches);
        let Pass { processor, entries, states, activations, .. } = pass;
        let Activations { q, context, .. } = &mut **activations;
        self.q.run(processor, Input::Normed(&self.norm, states), Output::Store(q));
        let queries: Vec<Query<'_>> = entries
            .iter()
            .zip(q.chunks_exact(self.q.outputs()))
            .map(|(entry, q)| {
                let length = sources[entry.row].len() / states.width();
                Query { q, cache: &caches[entry.row], length, bias: None }
            })
            .collect();
        attend(processor, self.heads, &queries, context);
        self.o.run(processor, Input::Rows(context), Output::Add(states));
    }

    /// Projects the encoder's output of the rows that reach the layer for the first time.
    fn project(&self, pass: &mut Pass<'_>, sources: &[Vec<f32>], caches: &mut [KeysValues]) {
        let kv = &mut pass.activations.kv;
        for entry in pass.entries {
            let (source, cache) = (&sources[entry.row], &mut caches[entry.row]);
            if !cache.is_empty() {
                continue;
            }
            cache.clear(source.len() / pass.states.width());
            self.kv.run(pass.processor, Input::Rows(source), Output::Store(kv));
            // [source length, 2 * inner] -> twice [source length, inner]
            for (position, row) in kv.chunks_exact(self.kv.outputs()).enumerate() {
                let [k, v] = parts(row, self.heads.inner());
                cache.write(position, k, v);
            }
        }
    }
}

impl LayerCaches {
    /// Begins a decoding of `rows` rows.
    pub(crate) fn begin(&mut self, block: &DecoderBlock, rows: usize) {
        let LayerCaches { own, source } = self;
        if own.len() < rows {
            own.resize(rows, KeysValues::new(block.self_attention.heads));
            source.resize(rows, KeysValues::new(block.cross_attention.heads));
        }
        source.iter_mut().for_each(|cache| cache.clear(0));
    }

    /// Lets each row have the keys and values of the output that row `from[row]` had. Those of the source are
    /// its own.
    pub(crate) fn copy_rows(&mut self, from: &[usize]) {
        let mut uses = vec![0; from.len()];
        from.iter().for_each(|&row| uses[row] += 1);
        let mut before: Vec<Option<KeysValues>> = self.own.drain(..from.len()).map(Some).collect();
        let copies = from.iter().filter_map(|&row| {
            uses[row] -= 1;
            // The last use needs no copy.
            if uses[row] == 0 { before[row].take() } else { before[row].clone() }
        });
        self.own.splice(..0, copies);
    }
}
