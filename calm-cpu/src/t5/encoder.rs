//! The encoder, which reads one source at a time.

use calm_checkpoint::Direction;
use calm_core::{Entry, Token};

use super::Network;
use super::layers::{Activations, DenseReluDense, Pass, PositionBias, SelfAttention};
use crate::attention::KeysValues;
use crate::elementwise::RmsNorm;
use crate::linear::Processor;
use crate::states::States;
use crate::weights::Stored;

pub(super) struct Encoder {
    pub(super) blocks: Vec<EncoderBlock>,
    /// [buckets, heads]
    pub(super) relative_attention_bias: Stored,
    pub(super) final_layer_norm: RmsNorm,
}

pub(super) struct EncoderBlock {
    pub(super) self_attention: SelfAttention,
    pub(super) feed_forward: DenseReluDense,
}

impl EncoderBlock {
    fn forward(&self, pass: &mut Pass<'_>, caches: &mut [KeysValues]) {
        self.self_attention.forward(pass, caches);
        self.feed_forward.forward(pass);
    }
}

impl Network {
    /// Encodes one source: [length, d_model]
    pub(super) fn encode(&self, processor: &Processor, source: &[Token]) -> Vec<f32> {
        let (encoder, width, length) = (&self.encoder, self.shape.d_model, source.len());
        let mut states = vec![0.0; length * width];
        for (&token, state) in source.iter().zip(states.chunks_exact_mut(width)) {
            self.shared.read_row(token as usize, state);
        }
        let learned = encoder.relative_attention_bias.to_vec();
        let slots: Vec<usize> = (0..length).collect();
        let entries: Vec<Entry> = (0..length).map(|position| Entry { row: 0, position }).collect();
        let mut pass = Pass {
            processor,
            entries: &entries,
            states: States::new(&mut states, width, &slots),
            bias: &PositionBias::new(&self.config, Direction::Bidirectional, &learned, length),
            activations: &mut Activations::default(),
        };
        let mut caches = Vec::from_iter(
            encoder.blocks.first().map(|block| KeysValues::new(block.self_attention.heads, length)),
        );
        for block in &encoder.blocks {
            block.forward(&mut pass, &mut caches);
        }
        let mut encoded = vec![0.0; length * width];
        for (state, to) in pass.states.rows().zip(encoded.chunks_exact_mut(width)) {
            encoder.final_layer_norm.apply(state, to);
        }
        encoded
    }
}
