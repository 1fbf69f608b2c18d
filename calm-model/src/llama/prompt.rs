//! Prompts that were read: keys and values of all their tokens but the last, in all layers.

use calm_checkpoint::{Error as CheckpointError, check_context, check_sources};
use calm_core::profile::{self, Part};
use calm_core::{BackboneShape, DecoderSession, EngineError, Entry, Prompt, Token};
use tch::{Kind, Tensor};

use super::Llama;
use super::decoding::Decoding;
use crate::Error;
use crate::decoder::{CausalBias, Layers, Rope, Session, Start};

/// Positions of a prompt that run at once. Their scores need memory by the square of it.
const POSITIONS_AT_ONCE: usize = 512;

/// A batch of prompts that were read.
pub(super) struct Read<'a> {
    model: &'a Llama,
    /// Number of tokens of each prompt.
    lengths: Vec<usize>,
    last_tokens: Vec<Token>,
    /// Per layer, keys and values of all but the last token of each prompt, from position 0 on:
    /// [rows, longest, 2 * kv_inner].
    kv: Vec<Tensor>,
}

impl Prompt for Read<'_> {
    fn shape(&self) -> &BackboneShape {
        &self.model.about.shape
    }

    fn first_inputs(&self) -> Vec<Token> {
        self.last_tokens.clone()
    }

    fn start(&self, max_tokens: usize) -> Result<Box<dyn DecoderSession + '_>, EngineError> {
        let positions = self.model.config.max_position_embeddings as usize;
        check_context(self.lengths.iter().copied(), max_tokens, positions)?;
        let offsets: Vec<usize> = self.lengths.iter().map(|length| length - 1).collect();
        let longest = offsets.iter().max().copied().unwrap_or(0);
        let mut session = session(self.model, offsets, longest + max_tokens, false);
        session.fill(&self.kv);
        Ok(Box::new(session))
    }
}

impl<'a> Read<'a> {
    pub(super) fn new(model: &'a Llama, prompts: &[&[Token]]) -> Result<Self, EngineError> {
        let _part = profile::enter(Part::Encoder);
        check_sources(prompts, model.config.vocab_size as usize)?;
        let lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.len()).collect();
        check_context(lengths.iter().copied(), 1, model.config.max_position_embeddings as usize)?;
        let last_tokens = prompts.iter().filter_map(|prompt| prompt.last().copied()).collect();
        let longest = lengths.iter().map(|length| length - 1).max().unwrap_or(0);
        let kv = if longest > 0 { read(model, prompts, longest)? } else { Vec::new() };
        Ok(Read { model, lengths, last_tokens, kv })
    }
}

/// Runs all layers for all tokens of prompts but the last ones: per layer, [rows, longest, 2 * kv_inner].
fn read(model: &Llama, prompts: &[&[Token]], longest: usize) -> Result<Vec<Tensor>, EngineError> {
    let _no_grad = tch::no_grad_guard();
    let mut session = session(model, vec![0; prompts.len()], longest, true);
    for first in (0..longest).step_by(POSITIONS_AT_ONCE) {
        let (mut entries, mut tokens) = (Vec::new(), Vec::new());
        for (row, prompt) in prompts.iter().enumerate() {
            let read = &prompt[..prompt.len() - 1];
            let now = read.iter().copied().enumerate().skip(first).take(POSITIONS_AT_ONCE);
            for (position, token) in now {
                entries.push(Entry { row, position });
                tokens.push(token);
            }
        }
        session.embed(&entries, &tokens)?;
        for layer in 1..=model.layers.len() {
            session.run_layer(layer, &entries)?;
        }
        // A state whose square is infinite would become 0 in the norm, and nobody would notice.
        let sums = session.states(&entries).square().sum_dim_intlist([1].as_slice(), false, Kind::Float);
        let sums = Vec::<f32>::try_from(sums).map_err(Error::from)?;
        if let Some(index) = sums.iter().position(|sum| !sum.is_finite()) {
            return Err(CheckpointError::PromptNotFinite { row: entries[index].row }.into());
        }
    }
    Ok(session.into_caches())
}

/// A decoding whose rows begin their outputs at `offsets`, and have so many positions in all.
fn session(model: &Llama, offsets: Vec<usize>, positions: usize, reads: bool) -> Session<Decoding<'_>> {
    let layers = Decoding(model);
    let options = layers.options();
    let start = Start {
        offsets,
        positions,
        bias: CausalBias::mask(positions as i64, options),
        rope: Some(Rope::new(&model.config.inverse_frequencies(), positions as i64, options)),
        reads,
    };
    Session::new(layers, start)
}
