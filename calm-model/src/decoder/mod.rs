//! A decoding in progress, whatever the network: K/V caches, entries and their states, attention. What
//! differs between networks is behind [`Layers`].

mod bias;
mod layout;
mod rope;
mod session;

use tch::{Device, Kind, Tensor};

pub(crate) use self::bias::{ALIGNMENT, CausalBias, aligned};
pub(crate) use self::layout::{Layout, of_rows};
pub(crate) use self::rope::Rope;
pub(crate) use self::session::{Session, Start};

/// The layers of a decoder, as one decoding runs them. Layers count from 1.
pub(crate) trait Layers {
    /// Number of layers.
    fn count(&self) -> usize;

    /// Dimensions of self-attention.
    fn attention(&self) -> Attention;

    /// The head that all exits share: [vocab_size, d_model].
    fn head(&self) -> &Tensor;

    /// The rows of it that exit heads end in: [tokens, d_model].
    fn exit_head(&self) -> &Tensor;

    /// What the head multiplies: states [states, d_model] through the final norm.
    fn head_input(&self, states: &Tensor) -> Tensor;

    /// The embedding: [entries] -> [entries, d_model].
    fn embed(&self, tokens: &Tensor) -> Tensor;

    /// Queries, keys and values of normed states: [entries, d_model] -> [entries, inner + 2 * kv_inner].
    fn project(&self, layer: usize, x: &Tensor) -> Tensor;

    /// Keys and values alone: [entries, d_model] -> [entries, 2 * kv_inner].
    fn project_kv(&self, layer: usize, x: &Tensor) -> Tensor;

    /// States after self-attention: x [entries, d_model] and what was attended to, [entries, inner].
    fn attended(&self, layer: usize, x: Tensor, context: &Tensor) -> Tensor;

    /// Mask of the sources of some rows, or of all, if there is attention to them:
    /// [rows, 1, 1, source length].
    fn source_mask(&self, _rows: Option<&Tensor>) -> Option<Tensor> {
        None
    }

    /// States after attention to the sources, if there is any: [entries, d_model].
    fn cross_attention(&mut self, _layer: usize, _layout: &Layout, x: Tensor) -> Tensor {
        x
    }

    /// States after the feed-forward layer: [entries, d_model].
    fn feed_forward(&self, layer: usize, x: &Tensor) -> Tensor;

    /// Type and device of all tensors.
    fn options(&self) -> (Kind, Device) {
        (self.head().kind(), self.head().device())
    }
}

/// Dimensions of self-attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention {
    /// Heads of the queries.
    pub(crate) heads: i64,
    /// Heads of keys and values, each of which serves as many heads of the queries.
    pub(crate) kv_heads: i64,
    /// Width of a head.
    pub(crate) head_dim: i64,
    /// Factor on the scores.
    pub(crate) scale: f64,
}

impl Attention {
    /// Width of all heads of the queries.
    pub(crate) fn inner(self) -> i64 {
        self.heads * self.head_dim
    }

    /// Width of all heads of the keys.
    pub(crate) fn kv_inner(self) -> i64 {
        self.kv_heads * self.head_dim
    }

    /// Heads of the queries for each of keys and values.
    pub(crate) fn group(self) -> i64 {
        self.heads / self.kv_heads
    }
}

/// [batch, length, heads * head_dim] -> [batch, heads, length, head_dim]
pub(crate) fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    let (batch, length, inner) = x.size3().expect("three dimensions");
    x.view([batch, length, heads, inner / heads]).transpose(1, 2)
}

/// [batch, heads, length, head_dim] -> [batch, length, heads * head_dim]
pub(crate) fn merge_heads(x: &Tensor) -> Tensor {
    x.transpose(1, 2).flatten(2, 3)
}
