//! Early-exit decoding without a tensor library: backbone trait, confidence measures, policies, decoding loop.

mod backbone;
mod decode;
mod exit_test;
mod generation;
mod measure;
mod policy;
mod propagation;
mod threshold;

pub use backbone::{
    Backbone, BackboneShape, CacheEntry, DecoderSession, ExitClassifier, Matrix, Token, Top2,
};
pub use decode::{DecodeError, DecodeOptions, Propagation, decode};
pub use generation::{Generation, average_layers};
pub use measure::{
    ConfidenceMeasure, LayerView, Measure, MeasureInputs, SharedMeasure, SoftmaxResponse, StateSaturation,
};
pub use policy::{Policy, PolicyError, PolicySpec};
pub use threshold::{StepThreshold, Threshold};
