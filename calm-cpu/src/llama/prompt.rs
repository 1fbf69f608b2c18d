//! Prompts, whose keys and values are computed before an output begins.

use calm_checkpoint::{Error as CheckpointError, check_context};
use calm_core::{BackboneShape, DecoderSession, EngineError, Entry, Prompt, Token};

use super::Llama;
use crate::caches::LayerCaches;
use crate::elementwise::dot;
use crate::layers::Pass;
use crate::pool::Pool;
use crate::session::{Memory, Session};
use crate::states::States;

/// Most tokens that go through the layers together. More would leave the caches of a core between two
/// products, fewer would read the weights more often.
const TOGETHER: usize = 512;

/// A batch of prompts that have been read: keys and values of all but the last token of each are in memory.
pub(super) struct Read<'a> {
    model: &'a Llama,
    prompts: Vec<Vec<Token>>,
    /// The memory with the keys and values of the prompts, while no decoding has it. A decoding writes behind
    /// them and gives it back.
    memory: Pool<Memory>,
}

impl<'a> Read<'a> {
    pub(super) fn new(model: &'a Llama, prompts: &[&[Token]]) -> Result<Self, EngineError> {
        let positions = model.config().max_position_embeddings as usize;
        check_context(prompts.iter().map(|prompt| prompt.len()), 1, positions)?;
        let prompts = prompts.iter().map(|prompt| prompt.to_vec()).collect();
        let read = Read { model, prompts, memory: Pool::default() };
        read.memory.give(read.fill()?);
        Ok(read)
    }

    /// Takes all tokens of the prompts but the last ones through all layers.
    fn fill(&self) -> Result<Memory, EngineError> {
        let Llama { network, processor, prompts: pool } = self.model;
        let mut memory = pool.take();
        let (layers, width) = (&network.layers, network.shape.d_model);
        memory.caches.resize_with(layers.len(), LayerCaches::default);
        for (caches, layer) in memory.caches.iter_mut().zip(layers) {
            caches.begin(self.prompts.len(), layer.self_attn.heads, None);
        }
        let tokens: Vec<(Entry, Token)> = self
            .prompts
            .iter()
            .enumerate()
            .flat_map(|(row, prompt)| {
                let before = &prompt[..prompt.len() - 1];
                before.iter().enumerate().map(move |(position, &token)| (Entry { row, position }, token))
            })
            .collect();
        let longest = self.prompts.iter().map(Vec::len).max().unwrap_or(0);
        let positions = network.positions(longest);
        let Memory { caches, states, slots, entries, activations, .. } = &mut memory;
        for tokens in tokens.chunks(TOGETHER) {
            if states.len() < tokens.len() * width {
                states.resize(tokens.len() * width, 0.0);
            }
            for ((_, token), state) in tokens.iter().zip(states.chunks_exact_mut(width)) {
                network.embed_tokens.read_row(*token as usize, state);
            }
            slots.clear();
            slots.extend(0..tokens.len());
            entries.clear();
            entries.extend(tokens.iter().map(|(entry, _)| entry));
            let mut pass = Pass {
                processor,
                entries,
                states: States::new(states, width, slots),
                positions: &positions,
                activations,
            };
            for (layer, caches) in layers.iter().zip(&mut *caches) {
                layer.forward(&mut pass, &mut caches.own);
            }
            // Later tokens would attend to what is no number, which a norm hides.
            let is_lost = |state: &[f32]| !dot(state, state).is_finite();
            if let Some(index) = pass.states.rows().position(is_lost) {
                return Err(CheckpointError::PromptNotFinite { row: tokens[index].0.row }.into());
            }
        }
        Ok(memory)
    }
}

impl Prompt for Read<'_> {
    fn shape(&self) -> &BackboneShape {
        &self.model.network.shape
    }

    fn first_inputs(&self) -> Vec<Token> {
        self.prompts.iter().map(|prompt| prompt[prompt.len() - 1]).collect()
    }

    fn start(&self, max_tokens: usize) -> Result<Box<dyn DecoderSession + '_>, EngineError> {
        let Llama { network, processor, .. } = self.model;
        let lengths = || self.prompts.iter().map(Vec::len);
        check_context(lengths(), max_tokens, network.config.max_position_embeddings as usize)?;
        // Another decoding of these prompts may be under way.
        let memory = self.memory.take_given().map_or_else(|| self.fill(), Ok)?;
        let before = lengths().map(|length| length - 1).collect();
        Ok(Box::new(Session::new(&**network, processor, before, memory, &self.memory)))
    }
}

impl Drop for Read<'_> {
    fn drop(&mut self) {
        while let Some(memory) = self.memory.take_given() {
            self.model.prompts.give(memory);
        }
    }
}
