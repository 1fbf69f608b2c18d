//! T5 and Llama on the CPU without a tensor library, as backbones whose decoders may stop after any layer.
//!
//! Made for decoding one or a few sequences at a time, where a token reads every weight of the layers it
//! runs: the time goes into bytes. So weights may be narrow ([`WeightType`]), the head is read in 8 bits and
//! only its leaders in full, and layers that do not run are not read at all. Encoder and decoder use the same
//! kernels.
//!
//! A row's result depends neither on the rows beside it nor on the number of threads.

mod attendance;
mod attention;
mod blocks;
mod caches;
mod elementwise;
mod error;
mod head;
mod int8;
mod layers;
mod linear;
mod llama;
mod origin;
mod panels;
mod pool;
mod positions;
mod session;
mod simd;
mod states;
mod t5;
mod team;
#[cfg(test)]
mod tests;
mod weights;

pub use calm_checkpoint::WeightType;

pub use crate::error::Error;
pub use crate::llama::{LOADER as LLAMA_LOADER, Llama};
pub use crate::t5::{LOADER as T5_LOADER, T5};
pub use crate::team::all_cores;
pub use crate::weights::Weights;
