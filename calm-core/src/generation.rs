//! What a decoding leaves behind.

use serde::{Deserialize, Serialize};

use crate::backbone::Token;

/// One generated sequence and what it took. The three lists are equally long.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Output tokens, the end-of-sequence token included if it came.
    pub tokens: Vec<Token>,
    /// Layers that ran for each token before it left, from 1. For the oracle the layer it could have left at;
    /// for a draft that stayed the layer that drafted it.
    pub exit_layers: Vec<usize>,
    /// Confidence that each token was last tested with: at its exit layer or, for tokens that no layer was
    /// confident about, at the last layer that is tested, usually one below the last of all. `None` if
    /// nothing was tested.
    pub confidence: Vec<Option<f32>>,
    /// Layer-tokens that really ran. The oracle runs every layer for every token; layers that were deferred
    /// and wrong drafts count too.
    pub executed_layers: usize,
    /// Tokens that were drafted, those that did not stay among them.
    #[serde(default)]
    pub drafted: usize,
    /// Tokens of the last layer that an exit head was not sure of there, so that the whole head was asked.
    #[serde(default)]
    pub fallbacks: usize,
    /// K/V entries (one layer, one position) that were written by propagation, or copied.
    pub propagated: usize,
    /// Decoding time of the batch divided by its rows. The encoder is not in it.
    pub seconds: f64,
}

impl Generation {
    /// Mean exit layer of the tokens, or `None` without tokens.
    pub fn average_layers(&self) -> Option<f64> {
        average_layers(std::slice::from_ref(self))
    }

    /// Leaves out the tokens from position `length` on. What they took stays counted.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.tokens.truncate(length);
        self.exit_layers.truncate(length);
        self.confidence.truncate(length);
    }
}

/// Mean exit layer of all tokens, the measure of efficiency of the paper, or `None` without tokens.
pub fn average_layers(generations: &[Generation]) -> Option<f64> {
    let exit_layers = || generations.iter().flat_map(|generation| &generation.exit_layers);
    let tokens = exit_layers().count();
    (tokens > 0).then(|| exit_layers().sum::<usize>() as f64 / tokens as f64)
}
