//! Early-exit decoding without a tensor library: the heart of Confident Adaptive Language Modeling (CALM).
//!
//! [`decode`] is the algorithm: a batch of sequences is decoded token by token, each token leaves the decoder
//! at the first layer where a [`ConfidenceMeasure`] reaches the [`Threshold`], and the state it left with
//! stands in for those of the layers it skipped. Networks take part by the [`Backbone`] trait; what they
//! compute with is their own affair.
//!
//! "The paper" is Schuster et al., Confident Adaptive Language Modeling, NeurIPS 2022 (arXiv 2207.07061).
//! Layers count from 1, and the exit layer of a token is the number of layers that ran for it.
//!
//! # A measure of your own
//!
//! A measure works on plain slices, so it needs no tensor library either, and runs on every backbone.
//!
//! ```
//! use std::sync::Arc;
//!
//! use calm_core::{Backbone, DecodeError, DecodeOptions, Generation, Policy, Propagation, Threshold, Token};
//! use calm_core::{ConfidenceMeasure, LayerView, MeasureInputs, decode};
//!
//! /// 1 for a prediction without doubt, 0 if all tokens are equally likely.
//! struct NegatedEntropy;
//!
//! impl ConfidenceMeasure for NegatedEntropy {
//!     fn name(&self) -> &str {
//!         "entropy"
//!     }
//!
//!     fn inputs(&self) -> MeasureInputs {
//!         MeasureInputs { logits: true, ..MeasureInputs::default() }
//!     }
//!
//!     fn confidence(&self, view: &LayerView<'_>) -> f32 {
//!         let largest = view.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
//!         let weights: Vec<f32> = view.logits.iter().map(|logit| (logit - largest).exp()).collect();
//!         let sum: f32 = weights.iter().sum();
//!         let probabilities = weights.iter().map(|weight| weight / sum).filter(|p| *p > 0.0);
//!         1.0 + probabilities.map(|p| p * p.ln()).sum::<f32>() / (view.logits.len() as f32).ln()
//!     }
//! }
//!
//! /// Decodes with any backbone; tokens may leave as soon as the measure says 0.8 or more.
//! fn generate<B: Backbone>(
//!     backbone: &B,
//!     sources: &[&[Token]],
//! ) -> Result<Vec<Generation>, DecodeError<B::Error>> {
//!     let threshold = Threshold::new(0.8, None).map_err(DecodeError::Policy)?;
//!     let policy = Policy::Calm { measure: Arc::new(NegatedEntropy), threshold };
//!     let options = DecodeOptions { max_tokens: 128, propagation: Propagation::Lazy };
//!     let encoded = backbone.encode(sources)?;
//!     decode(backbone, &encoded, sources.len(), &policy, &options)
//! }
//!
//! let view = |logits| LayerView { layer: 1, logits, ..LayerView::default() };
//! assert_eq!(NegatedEntropy.confidence(&view(&[200.0, 0.0, 0.0])), 1.0);
//! assert!(NegatedEntropy.confidence(&view(&[7.0, 7.0])).abs() < 1e-6);
//! ```

mod backbone;
mod batch;
mod decode;
mod exit_test;
mod flops;
mod generation;
mod measure;
mod policy;
mod propagation;
mod threshold;

pub use backbone::{
    Backbone, BackboneShape, CacheEntry, DecoderSession, ExitClassifier, Matrix, Token, Top2, best_tokens,
};
pub use batch::{all_cores, batch_by_length, cut_source, in_input_order, map_batches};
pub use decode::{DecodeError, DecodeOptions, Propagation, decode};
pub use flops::CostModel;
pub use generation::{Generation, average_layers};
pub use measure::{ConfidenceMeasure, LayerView, Measure, MeasureInputs, PRUNED_TOKENS, SharedMeasure};
pub use policy::{Policy, PolicyError, PolicySpec};
pub use threshold::{StepThreshold, Threshold};
