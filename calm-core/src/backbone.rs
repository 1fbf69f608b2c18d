//! What the decoding loop asks of a network: a [`Backbone`] reads sources, the [`Prompt`] it made of them
//! starts decodings, and a [`DecoderSession`] is one decoding in progress.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cost::Cost;
use crate::error::EngineError;
use crate::exit_heads::ExitHeads;
use crate::matrix::{Matrix, Shortlist, Top2, best_tokens, dot};
use crate::measure::ExitClassifier;

/// A token of the backbone's vocabulary.
pub type Token = u32;

/// What the loop, the policies and the cost model know of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackboneShape {
    /// Decoder layers, L in the paper; at least 1. Layers count from 1.
    pub num_layers: usize,
    /// Width of the residual stream: numbers of a state.
    pub d_model: usize,
    /// Columns of the logits: tokens that the head knows.
    pub vocab_size: usize,
    /// The tokens that end a generation.
    pub eos_tokens: Vec<Token>,
    /// FLOPs of decoding.
    pub flops: Cost,
    /// Bytes of memory that decoding a token on its own reads, weights and caches.
    pub bytes: Cost,
}

/// A network whose decoder may stop after any layer.
pub trait Backbone: Send {
    /// Dimensions, costs and special tokens.
    fn shape(&self) -> &BackboneShape;

    /// The exit classifier that was trained with this backbone, if any.
    fn exit_classifier(&self) -> Option<&ExitClassifier>;

    /// The exit heads that were trained for this backbone, if any.
    fn exit_heads(&self) -> Option<&ExitHeads> {
        None
    }

    /// The folder that it was loaded from, where measures find files of their own.
    fn folder(&self) -> Option<&Path> {
        None
    }

    /// Reads a batch of sources: an encoder-decoder encodes them, a decoder fills its caches with all of each
    /// prompt but its last token. Row `i` of all later calls is `sources[i]`.
    ///
    /// # Errors
    /// A source is empty or has tokens that the network does not know, or the engine fails.
    fn read<'a>(&'a self, sources: &[&[Token]]) -> Result<Box<dyn Prompt + 'a>, EngineError>;
}

/// A batch of sources that a backbone has read, to be decoded any number of times.
pub trait Prompt {
    /// The shape of the backbone that has read it.
    fn shape(&self) -> &BackboneShape;

    /// The decoder's first input in each row: a start token, or the last token of a prompt.
    fn first_inputs(&self) -> Vec<Token>;

    /// Starts decoding all rows, each at most `max_tokens` long.
    ///
    /// # Errors
    /// The engine fails.
    fn start(&self, max_tokens: usize) -> Result<Box<dyn DecoderSession + '_>, EngineError>;
}

/// One token of a row: where it stands in the batch and in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Row of the batch, from 0.
    pub row: usize,
    /// Position in the row's output, from 0.
    pub position: usize,
}

/// One decoding in progress, layer by layer.
///
/// Lists of entries are not empty, and in order of row, then position. They may have several positions of a
/// row, and rows at different positions. Each entry has one state, which begins as the embedding of its input
/// and which [`run_layer`](Self::run_layer) takes through the decoder, layer 1 first; it stays as it is where
/// an entry leaves early. What the last layer made of an entry is forgotten when the next one is embedded.
///
/// Among equal logits the lowest token is the best, and logits that are not numbers never win: of an entry
/// that has no others the best token is 0. By this the loop notices numbers that became too large, and looks
/// at the entry's state.
#[expect(
    clippy::missing_errors_doc,
    reason = "all methods fail where the engine does, as the first one says"
)]
pub trait DecoderSession {
    /// Embeds `tokens[i]` as the input at `entries[i]`. Positions of a row have no gaps; one that was
    /// forgotten by [`crop`](Self::crop) comes again.
    ///
    /// # Errors
    /// The engine fails, here as in all methods.
    fn embed(&mut self, entries: &[Entry], tokens: &[Token]) -> Result<(), EngineError>;

    /// Takes entries through decoder layer `layer`: writes their K/V of this layer, then lets each attend to
    /// its row from position 0 to its own. The caller has made sure that the K/V of this layer at all earlier
    /// positions exist, or are those of other `entries`.
    fn run_layer(&mut self, layer: usize, entries: &[Entry]) -> Result<(), EngineError>;

    /// Writes the K/V of `layer` for entries that do not run it, from the state they have: this layer's own
    /// norm and K/V projections, nothing else (paper section 3.3.1). What is there already is replaced.
    fn propagate(&mut self, layer: usize, entries: &[Entry]) -> Result<(), EngineError>;

    /// Gives entries that do not run `layer` copies of the keys and values of self-attention that they have
    /// in the layer below; layer 1 has none. What is there already is replaced. Only
    /// [`Skipped::Copied`](crate::Skipped::Copied) needs this.
    ///
    /// # Errors
    /// The engine fails, or does without it.
    fn copy_keys_values(&mut self, _layer: usize, _entries: &[Entry]) -> Result<(), EngineError> {
        Err(EngineError::new("this engine does not copy keys and values from layer to layer"))
    }

    /// States of entries, before any final norm: `[entries, d_model]`.
    fn hidden(&mut self, entries: &[Entry]) -> Result<Matrix, EngineError>;

    /// Products of the states of entries with `vector` `[d_model]`, as [`dot`] adds them up; they replace
    /// what is in `products`. An engine need not copy states for this.
    fn dot_hidden(
        &mut self,
        entries: &[Entry],
        vector: &[f32],
        products: &mut Vec<f64>,
    ) -> Result<(), EngineError> {
        let states = self.hidden(entries)?;
        products.clear();
        products.extend(states.rows().map(|state| dot(vector, state)));
        Ok(())
    }

    /// Replaces the states of entries: `[entries, d_model]`.
    fn set_hidden(&mut self, entries: &[Entry], states: &Matrix) -> Result<(), EngineError>;

    /// Logits of the shared head, final norm included, on the states of entries: `[entries, vocab_size]`.
    fn logits(&mut self, entries: &[Entry]) -> Result<Matrix, EngineError>;

    /// Logits of the shared head, final norm included, on states `[rows, d_model]` that are no entry's, which
    /// exit heads ask for: `[rows, tokens]`, those of [`ExitHeads::vocabulary`] alone if there is one.
    fn logits_of(&mut self, states: &Matrix) -> Result<Matrix, EngineError>;

    /// Best of these logits and probability margin among them for each of such states, as
    /// [`top2`](Self::top2) gives them for those of entries. The token is the column.
    fn top2_of(&mut self, states: &Matrix) -> Result<Vec<Top2>, EngineError> {
        Ok(self.logits_of(states)?.rows().map(Top2::from_logits).collect())
    }

    /// Best token and probability margin of each entry. An engine may fuse this with the head.
    fn top2(&mut self, entries: &[Entry]) -> Result<Vec<Top2>, EngineError> {
        Ok(self.logits(entries)?.rows().map(Top2::from_logits).collect())
    }

    /// Best token of each entry, and about the margin of [`top2`](Self::top2): for measures that are fitted
    /// to what an engine says, and need it cheap rather than exact. The token is that of `top2`.
    fn estimated_top2(&mut self, entries: &[Entry]) -> Result<Vec<Top2>, EngineError> {
        self.top2(entries)
    }

    /// Best token of each entry.
    fn predict(&mut self, entries: &[Entry]) -> Result<Vec<Token>, EngineError> {
        Ok(self.top2(entries)?.into_iter().map(|top2| top2.token).collect())
    }

    /// The `count` best tokens of each entry, in the order of [`best_tokens`].
    fn best_tokens(&mut self, entries: &[Entry], count: usize) -> Result<Vec<Vec<Token>>, EngineError> {
        Ok(self.logits(entries)?.rows().map(|logits| best_tokens(logits, count)).collect())
    }

    /// What [`estimated_top2`](Self::estimated_top2) says, and about the `count` best tokens of each entry.
    /// An engine does both in one pass over the vocabulary.
    fn shortlists(&mut self, entries: &[Entry], count: usize) -> Result<Vec<Shortlist>, EngineError> {
        let top2 = self.estimated_top2(entries)?;
        let tokens = self.best_tokens(entries, count)?;
        Ok(top2.into_iter().zip(tokens).map(|(top2, tokens)| Shortlist { top2, tokens }).collect())
    }

    /// Best token and margin where the vocabulary of `entries[i]` is `candidates[i]` alone: ascending, at
    /// least one each.
    fn top2_among(&mut self, entries: &[Entry], candidates: &[&[Token]]) -> Result<Vec<Top2>, EngineError> {
        let logits = self.logits(entries)?;
        let pairs = logits.rows().zip(candidates);
        Ok(pairs.map(|(logits, tokens)| Top2::among(tokens, |token| logits[token as usize])).collect())
    }

    /// Forgets the entries of `row` from position `length` on.
    fn crop(&mut self, row: usize, length: usize) -> Result<(), EngineError>;

    /// Lets each row have what row `from[row]` had: as many positions, and their K/V in all layers. `from`
    /// has an element for each row of the batch, and leads to rows of the same source alone. All states are
    /// forgotten. Only beam search needs this.
    ///
    /// # Errors
    /// The engine fails, or does without beam search.
    fn copy_rows(&mut self, _from: &[usize]) -> Result<(), EngineError> {
        Err(EngineError::new("this engine does not copy rows, which beam search needs"))
    }
}
