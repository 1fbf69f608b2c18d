//! Early-exit decoding without a tensor library: the heart of Confident Adaptive Language Modeling (CALM).
//!
//! [`decode`] is the algorithm: a batch of sequences is decoded token by token, each token leaves the decoder
//! at the first layer where a [`Measure`] reaches the [`Threshold`], and the state it left with stands in for
//! those of the layers it skipped. Networks take part by the [`Backbone`] trait; what they compute with is
//! their own affair.
//!
//! "The paper" is Schuster et al., Confident Adaptive Language Modeling, NeurIPS 2022 (arXiv 2207.07061).
//! Layers count from 1, and the exit layer of a token is the number of layers that ran for it.
//!
//! # A measure of your own
//!
//! A measure works on plain slices, so it needs no tensor library either, and runs on every backbone. With a
//! [`MeasureKind`] in [`MEASURES`] it can be chosen by name like the built-in ones; without, a program
//! decodes with it like this:
//!
//! ```
//! use calm_core::{Backbone, Calm, Confidence, DecodeError, DecodeOptions, Exits, Generation, Layer};
//! use calm_core::{Measure, StepMeasure, Threshold, Token, Top2, decode};
//!
//! /// The largest probability.
//! struct Largest;
//!
//! impl Measure for Largest {
//!     fn begin_step(&self) -> Box<dyn StepMeasure + '_> {
//!         Box::new(Largest)
//!     }
//! }
//!
//! impl StepMeasure for Largest {
//!     fn confidence(&mut self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError> {
//!         let largest = |logits: &[f32]| {
//!             let Top2 { token, .. } = Top2::from_logits(logits);
//!             let best = logits[token as usize];
//!             let sum: f32 = logits.iter().map(|logit| (logit - best).exp()).sum();
//!             Confidence { value: 1.0 / sum, token: Some(token) }
//!         };
//!         Ok(layer.logits()?.rows().map(largest).collect())
//!     }
//! }
//!
//! /// Decodes with any backbone; tokens may leave as soon as the measure says 0.8 or more.
//! fn generate(backbone: &dyn Backbone, sources: &[&[Token]]) -> Result<Vec<Generation>, DecodeError> {
//!     let exits = Exits::all_below(backbone.shape().num_layers);
//!     let policy = Calm { measure: Box::new(Largest), threshold: Threshold::new(0.8, None)?, exits };
//!     let prompt = backbone.read(sources)?;
//!     decode(&*prompt, &policy, &DecodeOptions::new(128))
//! }
//! ```

mod backbone;
mod beam;
mod beta_mixture;
mod caches;
mod cost;
mod decode;
mod decoder;
mod error;
mod exit_heads;
mod exits;
mod finite;
mod generation;
mod head_confidence;
mod layer;
mod matrix;
mod measure;
mod monotone;
mod policy;
pub mod profile;
mod sampling;
mod table;
mod threshold;

pub use backbone::{Backbone, BackboneShape, DecoderSession, Entry, Prompt, Token};
pub use beam::{BeamOptions, beam_search};
pub use beta_mixture::{BetaComponent, BetaMixture, PUBLISHED_ZETA, published_threshold};
pub use cost::{Cost, Tests};
pub use decode::{DecodeOptions, FinalToken, Propagation, decode, decode_streamed};
pub use error::{DecodeError, EngineError, NotFinite, PolicyError};
pub use exit_heads::{ExitHead, ExitHeads, HeadKind, HeadNorm};
pub use exits::Exits;
pub use generation::{Generation, average_layers};
pub use head_confidence::HeadConfidence;
pub use layer::Layer;
pub use matrix::{Matrix, Shortlist, Top2, best_tokens, dot};
pub use measure::{
    AGREEMENT_FILE, AgreementMap, AgreementMaps, BETA_FILE, BetaMixtures, Confidence, ExitClassifier,
    FittedTo, MEASURES, MapRule, Mapping, Measure, MeasureKind, Memory, PRUNED_TOKENS, StepMeasure,
};
pub use monotone::{MonotoneMap, Observation};
pub use policy::{
    Calm, Decision, DeepToken, DeepTokens, Deferral, Draft, Full, Left, Oracle, POLICIES, Parameter,
    Parameters, Policy, PolicyKind, PolicySpec, Skipped, StaticDepth, StepPolicy, Work,
};
pub use sampling::{Filter, Sampling};
pub use table::{Named, Table};
pub use threshold::Threshold;

/// Compiles and runs the code of these pages.
#[cfg(doctest)]
#[doc = include_str!("../../docs/book/new-policy.md")]
#[doc = include_str!("../../docs/book/new-model.md")]
struct Pages;
