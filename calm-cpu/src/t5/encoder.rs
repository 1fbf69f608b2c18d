//! The encoder, which reads one source at a time.

use calm_checkpoint::Direction;
use calm_core::{Entry, Token};

use super::Network;
use crate::caches::KeysValues;
use crate::elementwise::{RmsNorm, dot};
use crate::layers::{Activations, DenseReluDense, Pass, SelfAttention};
use crate::linear::Processor;
use crate::positions::{PositionBias, Positions};
use crate::states::States;
use crate::weights::Stored;

pub(super) struct Encoder {
    /// [vocab_size, d_model]
    pub(super) embed_tokens: Stored,
    pub(super) blocks: Vec<EncoderBlock>,
    /// [buckets, heads]
    pub(super) relative_attention_bias: Stored,
    pub(super) final_layer_norm: RmsNorm,
}

pub(super) struct EncoderBlock {
    pub(super) self_attention: SelfAttention,
    pub(super) feed_forward: DenseReluDense,
}

/// What the encoder writes to. It reads nothing that an earlier source has left there.
#[derive(Default)]
pub(crate) struct Memory {
    /// [length, d_model]
    states: Vec<f32>,
    slots: Vec<usize>,
    entries: Vec<Entry>,
    activations: Activations,
    /// Keys and values of the one row, of a layer after the other.
    cache: Option<KeysValues>,
}

impl EncoderBlock {
    fn forward(&self, pass: &mut Pass<'_>, caches: &mut [KeysValues]) {
        self.self_attention.forward(pass, caches);
        self.feed_forward.forward(pass);
    }
}

impl Network {
    /// Encodes one source: [length, d_model]. Returns none if a state is not finite or its square is not,
    /// which the norm would hide.
    pub(super) fn encode(
        &self,
        processor: &Processor,
        source: &[Token],
        memory: &mut Memory,
    ) -> Option<Vec<f32>> {
        let (encoder, width, length) = (&self.encoder, self.shape.d_model, source.len());
        let Memory { states, slots, entries, activations, cache } = memory;
        states.resize(length * width, 0.0);
        for (&token, state) in source.iter().zip(states.chunks_exact_mut(width)) {
            encoder.embed_tokens.read_row(token as usize, state);
        }
        let learned = encoder.relative_attention_bias.to_vec();
        slots.clear();
        slots.extend(0..length);
        entries.clear();
        entries.extend((0..length).map(|position| Entry { row: 0, position }));
        let bias = PositionBias::new(&self.config, Direction::Bidirectional, &learned, length);
        let mut pass = Pass {
            processor,
            entries,
            states: States::new(states, width, slots),
            positions: &Positions::Biased(bias),
            activations,
        };
        for block in &encoder.blocks {
            let cache = cache.get_or_insert_with(|| KeysValues::new(block.self_attention.heads));
            cache.clear(length);
            block.forward(&mut pass, std::slice::from_mut(cache));
        }
        if !pass.states.rows().all(|state| dot(state, state).is_finite()) {
            return None;
        }
        let mut encoded = vec![0.0; length * width];
        for (state, to) in pass.states.rows().zip(encoded.chunks_exact_mut(width)) {
            encoder.final_layer_norm.apply(state, to);
        }
        Some(encoded)
    }
}
