//! The decoding loop.

use crate::backbone::Backbone;
use crate::generation::Generation;
use crate::policy::{Policy, PolicyError};

/// When the K/V of layers that a token skipped are computed. The outputs are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Propagation {
    /// When a later token of the row first reaches the layer, many at once, and never if none does.
    #[default]
    Lazy,
    /// In the step in which the token left, as the paper describes it.
    Eager,
}

/// How to decode, whatever the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Longest output; also N of the decaying threshold.
    pub max_tokens: usize,
    /// When the K/V of skipped layers are computed.
    pub propagation: Propagation,
}

/// Why a batch could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError<E> {
    /// The backbone cannot follow the policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The engine failed.
    #[error(transparent)]
    Backbone(E),
    /// The engine answered for another number of rows than it was asked about.
    #[error("engine answered {call} for {found} rows instead of {expected}")]
    Rows {
        /// The method of the session.
        call: &'static str,
        /// Rows asked about.
        expected: usize,
        /// Rows in the answer.
        found: usize,
    },
}

/// Decodes all `rows` of `encoded` greedily, each until its end-of-sequence token or `max_tokens`.
pub fn decode<B: Backbone>(
    backbone: &B,
    encoded: &B::Encoded,
    rows: usize,
    policy: &Policy,
    options: &DecodeOptions,
) -> Result<Vec<Generation>, DecodeError<B::Error>> {
    let _ = (encoded, rows, options);
    policy.check(backbone.shape())?;
    unimplemented!("the loop is being written")
}
