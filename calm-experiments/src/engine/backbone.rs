//! One backbone type over all engines, so that a program chooses between them when it runs.

use calm_checkpoint::T5Config;
use calm_core::{Backbone, BackboneShape, CacheEntry, DecoderSession, ExitClassifier, Matrix, Token, Top2};

/// A T5 on one of the engines.
pub enum T5 {
    /// On the CPU engine.
    Cpu(calm_cpu::T5),
    /// On libtorch.
    #[cfg(feature = "libtorch")]
    Libtorch(Box<calm_model::T5>),
}

/// An engine's encoder output.
pub enum Encoded {
    /// Of the CPU engine.
    Cpu(calm_cpu::Encoded),
    /// Of libtorch.
    #[cfg(feature = "libtorch")]
    Libtorch(calm_model::Encoded),
}

/// An engine's decoding in progress.
pub enum Session<'a> {
    /// On the CPU engine.
    Cpu(calm_cpu::Session<'a>),
    /// On libtorch.
    #[cfg(feature = "libtorch")]
    Libtorch(calm_model::Session<'a>),
}

/// An engine failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The CPU engine.
    #[error(transparent)]
    Cpu(#[from] calm_cpu::Error),
    /// libtorch.
    #[cfg(feature = "libtorch")]
    #[error(transparent)]
    Libtorch(#[from] calm_model::Error),
    /// A decoding was started from what another engine encoded.
    #[error("the source was encoded by another engine")]
    OtherEngine,
}

/// The same expression for whichever engine it is.
macro_rules! each_engine {
    ($enum:ident, $self:expr, $inner:ident => $result:expr) => {
        match $self {
            $enum::Cpu($inner) => $result,
            #[cfg(feature = "libtorch")]
            $enum::Libtorch($inner) => $result,
        }
    };
}

impl T5 {
    /// `config.json`.
    pub fn config(&self) -> &T5Config {
        each_engine!(T5, self, model => model.config())
    }

    /// Bytes of weights that a token reads in one decoder layer, without the projections of the encoder's output, and those that a
    /// prediction reads.
    pub fn layer_and_head_bytes(&self) -> (usize, usize) {
        match self {
            T5::Cpu(model) => (model.layer_bytes(), model.head_bytes()),
            #[cfg(feature = "libtorch")]
            T5::Libtorch(model) => {
                let BackboneShape { d_model, inner, d_ff, gated, vocab_size, .. } = *model.shape();
                let feed_forward = if gated { 3 } else { 2 } * d_model * d_ff;
                (4 * (6 * d_model * inner + feed_forward), 4 * vocab_size * d_model)
            }
        }
    }

    /// Tensors of the checkpoint that the model has no use for.
    pub fn unexpected(&self) -> &[String] {
        each_engine!(T5, self, model => model.unexpected())
    }
}

impl Backbone for T5 {
    type Error = EngineError;
    type Encoded = Encoded;
    type Session<'a> = Session<'a>;

    fn shape(&self) -> &BackboneShape {
        each_engine!(T5, self, model => model.shape())
    }

    fn exit_classifier(&self) -> Option<&ExitClassifier> {
        each_engine!(T5, self, model => model.exit_classifier())
    }

    fn encode(&self, sources: &[&[Token]]) -> Result<Encoded, EngineError> {
        match self {
            T5::Cpu(model) => Ok(Encoded::Cpu(model.encode(sources)?)),
            #[cfg(feature = "libtorch")]
            T5::Libtorch(model) => Ok(Encoded::Libtorch(model.encode(sources)?)),
        }
    }

    fn start<'a>(&'a self, encoded: &Encoded, max_tokens: usize) -> Result<Session<'a>, EngineError> {
        match (self, encoded) {
            (T5::Cpu(model), Encoded::Cpu(encoded)) => Ok(Session::Cpu(model.start(encoded, max_tokens)?)),
            #[cfg(feature = "libtorch")]
            (T5::Libtorch(model), Encoded::Libtorch(encoded)) => {
                Ok(Session::Libtorch(model.start(encoded, max_tokens)?))
            }
            #[cfg(feature = "libtorch")]
            _ => Err(EngineError::OtherEngine),
        }
    }
}

impl DecoderSession for Session<'_> {
    type Error = EngineError;

    fn begin_step(&mut self, position: usize, rows: &[usize], tokens: &[Token]) -> Result<(), EngineError> {
        each_engine!(Session, self, session => Ok(session.begin_step(position, rows, tokens)?))
    }

    fn run_layer(&mut self, layer: usize, rows: &[usize]) -> Result<(), EngineError> {
        each_engine!(Session, self, session => Ok(session.run_layer(layer, rows)?))
    }

    fn hidden(&mut self, layer: usize, rows: &[usize]) -> Result<Matrix, EngineError> {
        each_engine!(Session, self, session => Ok(session.hidden(layer, rows)?))
    }

    fn logits(&mut self, layer: usize, rows: &[usize]) -> Result<Matrix, EngineError> {
        each_engine!(Session, self, session => Ok(session.logits(layer, rows)?))
    }

    fn top2(&mut self, layer: usize, rows: &[usize]) -> Result<Vec<Top2>, EngineError> {
        each_engine!(Session, self, session => Ok(session.top2(layer, rows)?))
    }

    fn best_tokens(
        &mut self,
        layer: usize,
        rows: &[usize],
        count: usize,
    ) -> Result<Vec<Vec<Token>>, EngineError> {
        each_engine!(Session, self, session => Ok(session.best_tokens(layer, rows, count)?))
    }

    fn top2_among(
        &mut self,
        layer: usize,
        rows: &[usize],
        candidates: &[&[Token]],
    ) -> Result<Vec<Top2>, EngineError> {
        each_engine!(Session, self, session => Ok(session.top2_among(layer, rows, candidates)?))
    }

    fn keep(&mut self, layer: usize, rows: &[usize]) -> Result<(), EngineError> {
        each_engine!(Session, self, session => Ok(session.keep(layer, rows)?))
    }

    fn predict(&mut self, rows: &[usize]) -> Result<Vec<Token>, EngineError> {
        each_engine!(Session, self, session => Ok(session.predict(rows)?))
    }

    fn propagate(&mut self, layer: usize, entries: &[CacheEntry]) -> Result<(), EngineError> {
        each_engine!(Session, self, session => Ok(session.propagate(layer, entries)?))
    }
}
