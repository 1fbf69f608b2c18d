//! The cost model: what decoding takes by the numbers that a model supplies.
//!
//! FLOPs are counted after Elbayad et al., Depth-Adaptive Transformer (ICLR 2020), appendix B, as the paper
//! does (appendix C.1): matrix products only, two FLOPs per multiplication and addition. Norms, residuals and
//! non-linearities are left out, and so is the encoder, which always runs.

use serde::{Deserialize, Serialize};

use crate::backbone::BackboneShape;
use crate::exits::Exits;
use crate::generation::Generation;
use crate::policy::PolicySpec;

/// What a decoder takes for one token, in FLOPs or in bytes: a multiplication and an addition are two FLOPs,
/// and bytes are those of weights and caches that are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// A layer, whatever the token attends to.
    pub layer: f64,
    /// A layer, for each position of the output that the token attends to, its own included.
    pub layer_per_key: f64,
    /// A layer, for each token of the source.
    pub layer_per_source_token: f64,
    /// Once for a sequence and each layer that any of its tokens reaches, for each token of the source: keys
    /// and values of cross-attention.
    pub first_reach_per_source_token: f64,
    /// A layer that the token skips: its key and value. Counted for every skipped layer as in the paper, also
    /// where lazy propagation never computes them; [`Generation::propagated`]
    /// tells how often it does.
    pub skipped_layer: f64,
    /// A product with the whole output head.
    pub head: f64,
    /// The logits of an exit head, the shared head included where it ends in that; 0 without exit heads.
    #[serde(default)]
    pub exit_head: f64,
}

impl Cost {
    /// The layers of a sequence for which so many layer-tokens ran, where exits do not tell what ran. Each is
    /// taken to attend to half of the output.
    fn executed(&self, executed_layers: usize, exit_layers: &[usize], source_tokens: usize) -> f64 {
        let source_tokens = source_tokens as f64;
        let keys = (exit_layers.len() + 1) as f64 / 2.0;
        let layer = self.layer + keys * self.layer_per_key + source_tokens * self.layer_per_source_token;
        let deepest = exit_layers.iter().copied().max().unwrap_or(0) as f64;
        executed_layers as f64 * layer + deepest * source_tokens * self.first_reach_per_source_token
    }

    /// The layers of a sequence whose tokens left at `exit_layers`, of `num_layers` in all. Heads and exit
    /// tests are not in it.
    pub fn layers(&self, num_layers: usize, exit_layers: &[usize], source_tokens: usize) -> f64 {
        let source_tokens = source_tokens as f64;
        let token = |(position, &layers): (usize, &usize)| {
            let keys = (position + 1) as f64;
            let layer = self.layer + keys * self.layer_per_key + source_tokens * self.layer_per_source_token;
            layers as f64 * layer + num_layers.saturating_sub(layers) as f64 * self.skipped_layer
        };
        let deepest = exit_layers.iter().copied().max().unwrap_or(0) as f64;
        exit_layers.iter().enumerate().map(token).sum::<f64>()
            + deepest * source_tokens * self.first_reach_per_source_token
    }
}

impl BackboneShape {
    /// All FLOPs of decoding an output under `policy`, exit tests included. What the oracle computes only to
    /// know its exits is not counted: it is a bound, not a method.
    pub fn sequence_flops(&self, policy: &PolicySpec, generation: &Generation, source_tokens: usize) -> f64 {
        let Generation { exit_layers, executed_layers, .. } = generation;
        let heads: f64 = exit_layers.iter().map(|&layers| policy.head_flops(self, layers)).sum();
        let heads = heads + generation.fallbacks as f64 * self.flops.head;
        let layers = match policy.kind().defers {
            true => self.flops.executed(*executed_layers, exit_layers, source_tokens),
            false => self.flops.layers(self.num_layers, exit_layers, source_tokens),
        };
        layers + heads
    }
}

impl BackboneShape {
    /// All bytes of weights and caches that decoding an output on its own reads under `policy`. Where layers
    /// run for several tokens at once they are read once, so that this goes by the exits and not by what was
    /// executed: a token that left early is in no pass of its own through the layers above. Wrong drafts,
    /// which no exit tells of, count with the layers of the shallowest exit.
    pub fn sequence_bytes(&self, policy: &PolicySpec, generation: &Generation, source_tokens: usize) -> f64 {
        let Generation { exit_layers, drafted, fallbacks, .. } = generation;
        let head_flops: f64 = exit_layers.iter().map(|&layers| policy.head_flops(self, layers)).sum();
        let head_flops = head_flops + *fallbacks as f64 * self.flops.head;
        let heads = head_flops / self.flops.head.max(1.0) * self.bytes.head;
        let stayed = exit_layers.iter().filter(|&&layers| layers < self.num_layers).count();
        let draft_layers = exit_layers.iter().copied().min().unwrap_or(0) as f64;
        let wrong =
            drafted.saturating_sub(stayed) as f64 * (draft_layers * self.bytes.layer + self.bytes.head);
        self.bytes.layers(self.num_layers, exit_layers, source_tokens) + heads + wrong
    }
}

/// The exit tests of one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tests {
    /// Number of tests of a token, at most one after each layer.
    pub count: usize,
    /// Whether the last of them let the token leave, so that the head is not asked again. A test after the
    /// last layer counts as one that does: tokens that it does not let leave are counted as
    /// [`Generation::fallbacks`].
    pub left_early: bool,
}

impl Tests {
    /// Those of a token that left after `exit_layer`, under a policy that tests at `exits`.
    pub fn new(exits: Exits, num_layers: usize, exit_layer: usize) -> Self {
        let left_early = exit_layer < num_layers || exits.contains(num_layers);
        Self { count: exits.up_to(exit_layer).len(), left_early }
    }

    /// Products with the head where each test is one, which gives the token too.
    pub fn heads(self) -> f64 {
        (self.count + usize::from(!self.left_early)) as f64
    }
}
