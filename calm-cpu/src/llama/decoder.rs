//! The network, one layer at a time.

use std::sync::{Arc, Mutex, PoisonError};

use calm_checkpoint::LlamaConfig;
use calm_core::profile::{self, Part};
use calm_core::{BackboneShape, Token};

use crate::caches::{KeysValues, LayerCaches};
use crate::head::Head;
use crate::layers::{DenseReluDense, Pass, SelfAttention};
use crate::linear::Linear;
use crate::origin::Origin;
use crate::positions::{Positions, Rotary};
use crate::session;
use crate::weights::Table;

/// What all handles on a model share.
pub(super) struct Network {
    pub(super) config: LlamaConfig,
    pub(super) shape: BackboneShape,
    pub(super) origin: Origin,
    /// [vocab_size, hidden_size]
    pub(super) embed_tokens: Table,
    pub(super) layers: Vec<DecoderLayer>,
    /// With the final norm.
    pub(super) head: Head,
    /// For as many positions as some decoding has needed so far.
    pub(super) rotary: Mutex<Arc<Rotary>>,
}

pub(super) struct DecoderLayer {
    pub(super) self_attn: SelfAttention,
    pub(super) mlp: DenseReluDense,
}

impl DecoderLayer {
    /// Takes tokens through the layer.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, caches: &mut [KeysValues]) {
        profile::within(Part::SelfAttention, || self.self_attn.forward(pass, caches));
        profile::within(Part::FeedForward, || self.mlp.forward(pass));
    }

    /// Bytes of the weights that a token reads.
    pub(super) fn bytes(&self) -> usize {
        let DecoderLayer { self_attn, mlp } = self;
        [&self_attn.qkv, &self_attn.o, &mlp.wi, &mlp.wo].into_iter().map(Linear::bytes).sum()
    }
}

impl Network {
    /// What attention knows of the positions below `length`.
    pub(super) fn positions(&self, length: usize) -> Positions {
        let mut rotary = self.rotary.lock().unwrap_or_else(PoisonError::into_inner);
        if rotary.length() < length {
            *rotary = Arc::new(Rotary::new(&self.config, length.max(2 * rotary.length())));
        }
        Positions::Turned(Arc::clone(&rotary))
    }
}

impl session::Decoder for &Network {
    fn shape(&self) -> &BackboneShape {
        &self.shape
    }

    fn head(&self) -> &Head {
        &self.head
    }

    fn exit_head(&self) -> &Head {
        self.origin.exit_head.as_ref().unwrap_or(&self.head)
    }

    fn embed(&self, token: Token, state: &mut [f32]) {
        self.embed_tokens.read_row(token as usize, state);
    }

    fn positions(&self, length: usize) -> Positions {
        Network::positions(self, length)
    }

    fn self_attention(&self, layer: usize) -> &SelfAttention {
        &self.layers[layer - 1].self_attn
    }

    fn run_layer(&self, layer: usize, pass: &mut Pass<'_>, caches: &mut LayerCaches) {
        self.layers[layer - 1].forward(pass, &mut caches.own);
    }
}
