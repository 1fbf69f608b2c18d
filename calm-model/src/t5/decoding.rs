//! The decoder of a T5 as one decoding runs it.

use tch::Tensor;

use super::dropout::Dropout;
use super::layers::SCALE;
use super::prompt::Encoded;
use super::{DecoderBlock, embed};
use crate::decoder::{Attention, Layers, Layout};

/// The decoder's layers, with what they see of the sources.
pub(super) struct Decoding<'a> {
    encoded: &'a Encoded<'a>,
    /// Per layer, keys and values [rows, heads, source length, d_kv], projected when the first token reaches
    /// the layer.
    cross_kv: Vec<Option<[Tensor; 2]>>,
}

impl<'a> Decoding<'a> {
    pub(super) fn new(encoded: &'a Encoded<'a>) -> Self {
        let cross_kv = encoded.model.decoder.blocks.iter().map(|_| None).collect();
        Decoding { encoded, cross_kv }
    }

    fn block(&self, layer: usize) -> &'a DecoderBlock {
        &self.encoded.model.decoder.blocks[layer - 1]
    }
}

impl Layers for Decoding<'_> {
    fn count(&self) -> usize {
        self.cross_kv.len()
    }

    fn attention(&self) -> Attention {
        let config = &self.encoded.model.config;
        let heads = config.num_heads;
        Attention { heads, kv_heads: heads, head_dim: config.d_kv, scale: SCALE }
    }

    fn head(&self) -> &Tensor {
        &self.encoded.model.head
    }

    fn exit_head(&self) -> &Tensor {
        &self.encoded.model.exit_head
    }

    fn head_input(&self, states: &Tensor) -> Tensor {
        self.encoded.model.head_input(states)
    }

    fn embed(&self, tokens: &Tensor) -> Tensor {
        embed(&self.encoded.model.decoder.embed_tokens, tokens)
    }

    fn project(&self, layer: usize, x: &Tensor) -> Tensor {
        let block = self.block(layer);
        block.self_attention.project(&block.self_attention_norm.forward(x))
    }

    fn project_kv(&self, layer: usize, x: &Tensor) -> Tensor {
        let block = self.block(layer);
        block.self_attention.project_kv(&block.self_attention_norm.forward(x))
    }

    fn attended(&self, layer: usize, x: Tensor, context: &Tensor) -> Tensor {
        x + self.block(layer).self_attention.output(context)
    }

    fn source_mask(&self, rows: Option<&Tensor>) -> Option<Tensor> {
        Some(self.encoded.mask(rows))
    }

    fn cross_attention(&mut self, layer: usize, layout: &Layout, x: Tensor) -> Tensor {
        let block = self.block(layer);
        let attention = &block.cross_attention;
        let states = &self.encoded.states;
        let [k, v] = self.cross_kv[layer - 1].get_or_insert_with(|| attention.project_kv(states));
        let kv = [layout.of_rows(k), layout.of_rows(v)];
        let q = attention.project_q(&block.cross_attention_norm.forward(&x));
        x + attention.output(&layout.attend_to_sources(&q, &kv))
    }

    fn feed_forward(&self, layer: usize, x: &Tensor) -> Tensor {
        let block = self.block(layer);
        x + block.feed_forward.forward(&block.feed_forward_norm.forward(x), &Dropout::off())
    }
}
