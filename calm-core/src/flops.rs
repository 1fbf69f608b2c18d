//! The cost model: decoder FLOPs as the paper counts them.
//!
//! After Elbayad et al., Depth-Adaptive Transformer (ICLR 2020), appendix B, which the paper uses (appendix
//! C.1): matrix products only, two FLOPs per multiplication and addition. Norms, residuals and
//! non-linearities are left out, and so is the encoder, which always runs.

use crate::backbone::BackboneShape;
use crate::measure::{MeasureInputs, PRUNED_TOKENS};

/// Decoder FLOPs of a backbone.
#[derive(Debug, Clone, PartialEq)]
pub struct CostModel {
    num_layers: usize,
    vocab_size: f64,
    /// Width d of the residual stream, and of the encoder states.
    d_model: f64,
    /// Width of queries, keys and values.
    inner: f64,
    /// Weights of the feed-forward network.
    feed_forward: f64,
}

impl CostModel {
    /// The published formula with this backbone's own dimensions: attention `inner` wide, and three matrices
    /// in a gated feed-forward network.
    pub fn new(shape: &BackboneShape) -> Self {
        let matrices = if shape.gated { 3 } else { 2 };
        Self {
            num_layers: shape.num_decoder_layers,
            vocab_size: shape.vocab_size as f64,
            d_model: shape.d_model as f64,
            inner: shape.inner as f64,
            feed_forward: (matrices * shape.d_model * shape.d_ff) as f64,
        }
    }

    /// The published formula to the letter, to compare with the paper's Table 2: attention as wide as the
    /// residual stream, and two matrices in the feed-forward network though T5 1.1 has three.
    pub fn as_published(shape: &BackboneShape) -> Self {
        Self::new(&BackboneShape { inner: shape.d_model, gated: false, ..shape.clone() })
    }

    /// A block that runs for a token which attends over `keys` decoder positions (itself included) and
    /// `source_length` encoder positions: `FC = 12 d^2 + 4 d d_ff + 4 t d + 4 |x| d`.
    ///
    /// The first term counts the six projections (q, k, v, o of self-attention; q, o of cross-attention), the
    /// last two count scores and weighted sums.
    pub fn block(&self, keys: usize, source_length: usize) -> f64 {
        12.0 * self.d_model * self.inner
            + 2.0 * self.feed_forward
            + 4.0 * (keys + source_length) as f64 * self.inner
    }

    /// Keys and values of a block's cross-attention, once per sequence and only if a token reaches the block:
    /// `4 |x| d d_e`.
    pub fn cross_attention_keys(&self, source_length: usize) -> f64 {
        4.0 * source_length as f64 * self.d_model * self.inner
    }

    /// A block that a token skips, where only its key and value are computed: `FS = 4 d^2`.
    ///
    /// Counted for every skipped block as in the paper, also where lazy propagation never has to compute it;
    /// [`Generation::propagated`](crate::Generation::propagated) tells how often it did.
    pub fn skipped_block(&self) -> f64 {
        4.0 * self.d_model * self.inner
    }

    /// The output head: `2 V d`.
    pub fn head(&self) -> f64 {
        2.0 * self.vocab_size * self.d_model
    }

    /// One exit test without the head, whose product also gives the token: `2 d` for the classifier. Comparing
    /// two states takes three dot products, `6 d`; Elbayad et al. have no such test.
    fn state_test(&self, inputs: MeasureInputs) -> f64 {
        let products = if inputs.previous_hidden { 3.0 } else { f64::from(u8::from(inputs.hidden)) };
        products * 2.0 * self.d_model
    }

    /// All FLOPs of decoding a sequence whose tokens left at `exit_layers`. Divide the sum over sequences by
    /// the number of their tokens for FLOPs per token.
    ///
    /// `test` is what the policy's measure looks at, as [`Policy::test_inputs`](crate::Policy::test_inputs)
    /// has it, or `None` if nothing was tested. A test follows every block that ran but the last of the
    /// decoder. What the oracle computes only to know its exits is not counted: it is a bound, not a method.
    pub fn sequence(&self, exit_layers: &[usize], source_length: usize, test: Option<MeasureInputs>) -> f64 {
        let tests_head = test.is_some_and(|inputs| inputs.logits || inputs.top2);
        let is_pruned = test.is_some_and(|inputs| inputs.pruned_top2);
        let state_test = test.map_or(0.0, |inputs| self.state_test(inputs));
        let mut flops = 0.0;
        for (position, &layers) in exit_layers.iter().enumerate() {
            let tests = layers.min(self.num_layers.saturating_sub(1));
            flops += layers as f64 * self.block(position + 1, source_length);
            flops += self.num_layers.saturating_sub(layers) as f64 * self.skipped_block();
            flops += tests as f64 * state_test;
            // A test with the head gives the token too.
            let heads = if tests_head {
                layers
            } else if is_pruned && tests > 0 {
                1 + usize::from(layers == self.num_layers)
            } else {
                1
            };
            flops += heads as f64 * self.head();
            if is_pruned {
                flops += tests as f64 * 2.0 * PRUNED_TOKENS as f64 * self.d_model;
            }
        }
        let deepest = exit_layers.iter().copied().max().unwrap_or(0);
        flops + deepest as f64 * self.cross_attention_keys(source_length)
    }

    /// All FLOPs of decoding a sequence of `tokens` tokens with the full model.
    pub fn full_sequence(&self, tokens: usize, source_length: usize) -> f64 {
        self.sequence(&vec![self.num_layers; tokens], source_length, None)
    }
}
