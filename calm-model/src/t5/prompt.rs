//! Sources that were read: the encoder's output.

use calm_checkpoint::{Error as CheckpointError, check_sources};
use calm_core::profile::{self, Part};
use calm_core::{BackboneShape, DecoderSession, EngineError, Prompt, Token};
use tch::{Kind, Tensor};

use super::T5;
use super::decoding::Decoding;
use super::dropout::Dropout;
use super::position::causal_bias;
use crate::Error;
use crate::decoder::{Session, Start, aligned, of_rows};
use crate::device::upload;

/// Encoder output of a batch.
pub(super) struct Encoded<'a> {
    pub(super) model: &'a T5,
    /// [rows, source length, d_model]
    pub(super) states: Tensor,
    /// 0 for tokens, minus infinity for padding: [rows, 1, 1, aligned source length]
    mask: Tensor,
}

impl Prompt for Encoded<'_> {
    fn shape(&self) -> &BackboneShape {
        &self.model.about.shape
    }

    fn first_inputs(&self) -> Vec<Token> {
        vec![self.model.config.start_token(); self.num_rows()]
    }

    fn start(&self, max_tokens: usize) -> Result<Box<dyn DecoderSession + '_>, EngineError> {
        let _no_grad = tch::no_grad_guard();
        let model = self.model;
        let table = &model.decoder.relative_attention_bias;
        let start = Start {
            offsets: vec![0; self.num_rows()],
            positions: max_tokens,
            bias: causal_bias(table, &model.config, max_tokens as i64),
            rope: None,
            reads: false,
        };
        Ok(Box::new(Session::new(Decoding::new(self), start)))
    }
}

impl<'a> Encoded<'a> {
    pub(super) fn new(model: &'a T5, sources: &[&[Token]]) -> Result<Self, Error> {
        let _part = profile::enter(Part::Encoder);
        let _no_grad = tch::no_grad_guard();
        check_sources(sources, model.config.vocab_size as usize)?;
        let length = sources.iter().map(|source| source.len()).max().unwrap_or(0);
        let mut tokens = vec![i64::from(model.config.pad_token_id); sources.len() * length];
        let aligned = aligned(length as i64) as usize;
        let mut mask = vec![f32::NEG_INFINITY; sources.len() * aligned];
        for (row, source) in sources.iter().enumerate() {
            for (i, &token) in source.iter().enumerate() {
                tokens[row * length + i] = i64::from(token);
                // A source may hold the padding token itself, so that the mask goes by length.
                mask[row * aligned + i] = 0.0;
            }
        }
        let (rows, length) = (sources.len() as i64, length as i64);
        let tokens = upload(&tokens, model.device()).view([rows, length]);
        let mask = Tensor::from_slice(&mask).view([rows, 1, 1, -1]).to_device(model.device());
        let mask = mask.to_kind(model.head.kind());
        let states = model.encode_tokens(&tokens, &mask, &Dropout::off());
        // A state whose square is infinite would become 0 in the norm, and nobody would notice.
        let sums = states.square().sum_dim_intlist([1, 2].as_slice(), false, Kind::Float);
        let sums = Vec::<f32>::try_from(sums)?;
        if let Some(row) = sums.iter().position(|sum| !sum.is_finite()) {
            return Err(CheckpointError::EncoderNotFinite { row }.into());
        }
        Ok(Encoded { model, states: model.normed(&states, &Dropout::off()), mask })
    }

    pub(super) fn num_rows(&self) -> usize {
        self.states.size()[0] as usize
    }

    /// Mask of the sources of some rows, or of all: [rows, 1, 1, source length], each row aligned.
    pub(super) fn mask(&self, rows: Option<&Tensor>) -> Tensor {
        of_rows(&self.mask, rows).narrow(-1, 0, self.states.size()[1])
    }
}
