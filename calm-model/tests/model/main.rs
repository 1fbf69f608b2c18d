//! The network against independent decodings, and what a damaged checkpoint is answered with.

#![allow(clippy::unwrap_used)]

mod checkpoints;
mod reference;
