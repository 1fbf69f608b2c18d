//! Policies: where each token leaves the decoder.
//!
//! A policy is a file with a [`PolicyKind`] and a line in [`POLICIES`].

mod calm;
mod full;
mod oracle;
mod patience;
mod spec;
mod static_depth;

pub use self::calm::Calm;
pub use self::full::Full;
pub use self::oracle::Oracle;
pub use self::spec::{Parameter, Parameters, PolicySpec};
pub use self::static_depth::StaticDepth;
use crate::backbone::{Backbone, BackboneShape, Token};
use crate::error::{DecodeError, PolicyError};
use crate::layer::Layer;
use crate::table::{Named, Table};

/// All policies that can be chosen by name.
pub static POLICIES: Table<PolicyKind> =
    Table::new(&[&full::FULL, &static_depth::STATIC, &oracle::ORACLE, &calm::CALM, &patience::PATIENCE]);

/// A policy that can be chosen by name and parameters.
pub struct PolicyKind {
    /// Name in flags, configurations, files and plots.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// What it takes, in the order of its written form. All of them are needed.
    pub parameters: &'static [Parameter],
    /// Makes the policy for a backbone.
    pub make: fn(&Parameters, &dyn Backbone) -> Result<Box<dyn Policy>, PolicyError>,
    /// Whether a decoder of so many layers gives the full model's outputs at the full model's cost.
    pub is_full: fn(&Parameters, num_layers: usize) -> bool,
    /// FLOPs of all tests of a token that left after so many layers, and of predicting it.
    pub head_flops: fn(&Parameters, &BackboneShape, exit_layer: usize) -> f64,
}

/// Where each token leaves the decoder, ready to decode with.
pub trait Policy: Send + Sync {
    /// Layers that run at most, of the decoder's.
    fn depth(&self, num_layers: usize) -> usize {
        num_layers
    }

    /// Begins a step: one token for each row of a batch, of outputs that are `max_tokens` long at most.
    fn begin_step(&self, max_tokens: usize) -> Box<dyn StepPolicy + '_>;
}

/// A policy during one step.
pub trait StepPolicy {
    /// Decides after each layer which of its entries leave. `decisions` has one for each, to stay; after the
    /// last layer all leave in any case.
    ///
    /// # Errors
    /// The engine fails.
    fn decide(&mut self, layer: &mut Layer<'_>, decisions: &mut [Decision]) -> Result<(), DecodeError>;
}

/// What becomes of an entry after a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Decision {
    /// The confidence that was tested, if any was.
    pub confidence: Option<f32>,
    /// The layer that the entry leaves at: this one or an earlier one, whose state the policy has put back.
    /// `None` for an entry that stays.
    pub exit_layer: Option<usize>,
    /// The token of an entry that leaves, where the test has given it. If it has not, the head is asked.
    pub token: Option<Token>,
}

impl Named for PolicyKind {
    const WHAT: &'static str = "policy";

    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }
}
