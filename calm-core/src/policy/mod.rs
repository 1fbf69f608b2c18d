//! Policies: where each token leaves the decoder.
//!
//! A policy is a file with a [`PolicyKind`] and a line in [`POLICIES`].

mod calm;
mod full;
mod oracle;
mod patience;
mod perturbed;
mod self_speculative;
mod shallow_cache;
mod shallow_deep;
mod shallow_deep_online;
mod spec;
mod speculation;
mod static_depth;

pub use self::calm::Calm;
pub use self::full::Full;
pub use self::oracle::Oracle;
pub use self::spec::{Draft, Parameter, Parameters, PolicySpec};
pub use self::static_depth::StaticDepth;
use crate::backbone::{Backbone, BackboneShape, Entry, Token};
use crate::error::{DecodeError, PolicyError};
use crate::layer::Layer;
use crate::table::{Named, Table};

/// All policies that can be chosen by name.
pub static POLICIES: Table<PolicyKind> = Table::new(&[
    &full::FULL,
    &static_depth::STATIC,
    &oracle::ORACLE,
    &calm::CALM,
    &patience::PATIENCE,
    &shallow_deep::SHALLOW_DEEP,
    &shallow_deep_online::SHALLOW_DEEP_BETA,
    &shallow_deep_online::SHALLOW_DEEP_PUBLISHED,
    &self_speculative::SELF_SPECULATIVE,
    // The experiments of the paper's section 3.3.
    &shallow_cache::SHALLOW_CACHE,
    &oracle::ORACLE_COPIED,
    &perturbed::PERTURBED_SAMPLING,
    &perturbed::PERTURBED_LAYER,
]);

/// A policy that can be chosen by name and parameters.
pub struct PolicyKind {
    /// Name in flags, configurations, files and plots.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// What it takes, in the order of its written form.
    pub parameters: &'static [Parameter],
    /// Makes the policy for a backbone.
    pub make: fn(&Parameters, &dyn Backbone) -> Result<Box<dyn Policy>, PolicyError>,
    /// Whether a decoder of so many layers gives the full model's outputs at the full model's cost.
    pub is_full: fn(&Parameters, num_layers: usize) -> bool,
    /// FLOPs of all tests of a token that left after so many layers, and of predicting it.
    pub head_flops: fn(&Parameters, &BackboneShape, exit_layer: usize) -> f64,
    /// Whether the layers above an exit run later for the token, so that exits do not tell what was computed.
    pub defers: bool,
}

/// Where each token leaves the decoder, ready to decode with.
pub trait Policy: Send + Sync {
    /// Layers that run at most, of the decoder's.
    fn depth(&self, num_layers: usize) -> usize {
        num_layers
    }

    /// What becomes of the layers that a token skipped.
    fn skipped(&self) -> Skipped {
        Skipped::Propagated
    }

    /// Whether a token that leaves may be drawn by its probability instead of being the best one.
    fn can_sample(&self) -> bool {
        true
    }

    /// Whether outputs depend on those that were decoded before, so that batches have to come one after the
    /// other and in order.
    fn learns_from_outputs(&self) -> bool {
        false
    }

    /// Begins to decode a batch.
    fn begin_batch(&self) {}

    /// Begins a step: one token for each row of a batch, of outputs that are `max_tokens` long at most.
    fn begin_step(&self, max_tokens: usize) -> Box<dyn StepPolicy + '_>;

    /// What it found out while it decoded that its user should know, as a sentence.
    fn remark(&self) -> Option<String> {
        None
    }
}

/// A policy during one step.
pub trait StepPolicy {
    /// Decides after each layer which of its entries leave. `decisions` has one for each, to stay; after the
    /// last layer all leave in any case.
    ///
    /// # Errors
    /// The engine fails.
    fn decide(&mut self, layer: &mut Layer<'_>, decisions: &mut [Decision]) -> Result<(), DecodeError>;

    /// Hears what the last layer makes of entries that it ran for, those that had left before among them, if
    /// the policy has asked by [`DeepTokens`]. They are in the order of their rows, then positions.
    fn hear(&mut self, _deep: &[DeepToken]) {}

    /// Hears what was spent on a call of the engine.
    fn spent(&mut self, _work: Work, _entries: usize, _seconds: f64) {}
}

/// What becomes of an entry after a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Decision {
    /// The confidence that was tested, if any was.
    pub confidence: Option<f32>,
    /// The layer that the entry leaves at: this one or, where layers are not deferred, an earlier one, whose
    /// state the policy has put back. `None` for an entry that stays.
    pub exit_layer: Option<usize>,
    /// The token of an entry that leaves, where the test has given it. If it has not, the head is asked.
    pub token: Option<Token>,
}

/// What becomes of the layers that a token skipped, when a later token attends to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// The state that the token left with stands in for those it never got (the CALM paper, section 3.3.1).
    Propagated,
    /// The keys and values of the last layer that the token ran stand in for theirs, as they are. This is
    /// what the paper compares propagation with (section 3.3.1), and costs much quality.
    Copied,
    /// They run after all, for all tokens of the row that wait together with the one that needs them, so that
    /// K/V are exact (synchronized parallel decoding: Bae et al., FREE, EMNLP 2023). Those that nobody needs
    /// never run.
    Deferred(Deferral),
}

/// How layers are deferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deferral {
    /// As soon as so many tokens of a row wait, at least one, their layers run although no token needs them.
    /// This bounds what a single step may have to do, and changes no output. `None` for no bound.
    pub cap: Option<usize>,
    /// What the last layer's tokens are for, of the tokens that had left.
    pub deep_tokens: DeepTokens,
}

/// What the last layer's tokens are for, of tokens that have left and run their other layers later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeepTokens {
    /// They are not computed.
    Unknown,
    /// The policy hears of them, and the output stays as it is.
    Heard,
    /// They are the output: from the first one on that differs from what the token had left with, the row is
    /// decoded again. So the tokens that left are drafts, and outputs are those of the full model.
    Decisive,
}

/// What the last layer makes of an entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeepToken {
    /// The entry that ran the last layer.
    pub entry: Entry,
    /// The last layer's token.
    pub token: Token,
    /// The token, confidence and layer that it had left with; `None` if it had not.
    pub left: Option<Left>,
}

/// What an entry left with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Left {
    /// Layers that had run.
    pub layer: usize,
    /// The token.
    pub token: Token,
    /// The confidence that it was tested with, if it was.
    pub confidence: Option<f32>,
}

/// What an engine was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A layer.
    Layer,
    /// The best tokens, by the head.
    Head,
    /// The best tokens by exit heads.
    ExitHead,
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
