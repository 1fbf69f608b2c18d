//! The decoder, one layer at a time.

use calm_checkpoint::Direction;
use calm_core::profile::{self, Part};
use calm_core::{BackboneShape, Token};

use super::Network;
use crate::attention::{Heads, Query, attend};
use crate::caches::{KeysValues, LayerCaches};
use crate::elementwise::RmsNorm;
use crate::head::Head;
use crate::layers::{Activations, DenseReluDense, Pass, SelfAttention, parts};
use crate::linear::{Input, Linear, Output};
use crate::positions::{PositionBias, Positions};
use crate::session;
use crate::weights::Stored;

pub(super) struct Decoder {
    /// [vocab_size, d_model]
    pub(super) embed_tokens: Stored,
    pub(super) blocks: Vec<DecoderBlock>,
    /// [buckets, heads]
    pub(super) relative_attention_bias: Stored,
    /// With the final norm.
    pub(super) head: Head,
}

pub(super) struct DecoderBlock {
    pub(super) self_attention: SelfAttention,
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

/// The decoder with the sources of a batch.
pub(super) struct Decoding<'a> {
    pub(super) network: &'a Network,
    /// The encoder's output of each row: [source length, d_model]
    pub(super) sources: &'a [Vec<f32>],
}

impl session::Decoder for Decoding<'_> {
    fn shape(&self) -> &BackboneShape {
        &self.network.shape
    }

    fn head(&self) -> &Head {
        &self.network.decoder.head
    }

    fn exit_head(&self) -> &Head {
        self.network.origin.exit_head.as_ref().unwrap_or(&self.network.decoder.head)
    }

    fn embed(&self, token: Token, state: &mut [f32]) {
        self.network.decoder.embed_tokens.read_row(token as usize, state);
    }

    fn positions(&self, length: usize) -> Positions {
        let learned = self.network.decoder.relative_attention_bias.to_vec();
        Positions::Biased(PositionBias::new(&self.network.config, Direction::Causal, &learned, length))
    }

    fn self_attention(&self, layer: usize) -> &SelfAttention {
        &self.network.decoder.blocks[layer - 1].self_attention
    }

    fn run_layer(&self, layer: usize, pass: &mut Pass<'_>, caches: &mut LayerCaches) {
        self.network.decoder.blocks[layer - 1].forward(pass, self.sources, caches);
    }
}

impl DecoderBlock {
    /// Takes tokens through the layer. `sources` are the encoder's outputs, by row.
    fn forward(&self, pass: &mut Pass<'_>, sources: &[Vec<f32>], caches: &mut LayerCaches) {
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
            for (position, row) in kv.chunks_exact_mut(self.kv.outputs()).enumerate() {
                let [k, v] = parts(row, [self.heads.kv_inner(); 2]);
                cache.write(position, k, v);
            }
        }
    }
}
