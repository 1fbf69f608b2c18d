//! Confidence measures: what is known after a layer, mapped to a number that is compared with the threshold.
//!
//! A measure is a file with a [`MeasureKind`] and a line in [`MEASURES`], or a crate of its own that adds its
//! kind to that table when the program starts.

mod agreement;
mod beta;
mod classifier;
mod heads;
mod margin;
mod pruned;
mod shortlist;
mod softmax;
mod state;

use std::fmt;
use std::str::FromStr;

use calm_names::UnknownName;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::agreement::{AGREEMENT_FILE, AgreementMap, AgreementMaps, FittedTo, MapRule};
pub use self::beta::{BETA_FILE, BetaMixtures};
pub use self::classifier::ExitClassifier;
pub(crate) use self::heads::top2 as head_top2;
pub use self::pruned::PRUNED_TOKENS;
pub(crate) use self::softmax::SOFTMAX;
use crate::backbone::{Backbone, BackboneShape, Token};
use crate::cost::Tests;
use crate::error::{DecodeError, PolicyError};
use crate::exits::Exits;
use crate::layer::Layer;
use crate::table::{Named, Table};

/// All measures that can be chosen by name.
pub static MEASURES: Table<MeasureKind> = Table::new(&[
    &softmax::SOFTMAX,
    &pruned::PRUNED,
    &state::STATE,
    &classifier::CLASSIFIER,
    &agreement::AGREEMENT,
    &agreement::AGREEMENT_PRUNED,
    &beta::BETA,
    &heads::HEAD_ENTROPY,
    &heads::HEAD_GAP,
    &heads::HEAD_MAX,
    &heads::HEAD_MARGIN,
    &heads::HEAD_CONFIDENCE,
    &heads::LEVEL_ENTROPY,
    &heads::LEVEL_GAP,
    &heads::LEVEL_MAX,
]);

/// A measure that can be chosen by name.
pub struct MeasureKind {
    /// Name in flags, configurations, files and plots: letters, digits and underscores.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// Makes the measure for a backbone. What it reads besides lies in the backbone's folder in files that
    /// are called `calm.NAME` and an extension: the fingerprint of a model, which results and certificates
    /// hold for, covers these.
    pub load: fn(&dyn Backbone) -> Result<Box<dyn Measure>, PolicyError>,
    /// FLOPs of all tests of a token, and of predicting it.
    pub flops: fn(&BackboneShape, Tests) -> f64,
    /// What is mapped, for one that [`MeasureKind::agreement`] or [`MeasureKind::level`] made.
    pub maps: Option<Mapping>,
}

/// A measure whose confidences are mapped, layer by layer, to something that means the same at all layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// The measure that is mapped.
    pub base: &'static MeasureKind,
    /// What the maps give, and how they are fitted.
    pub rule: MapRule,
}

impl MeasureKind {
    /// A measure that maps what `base` says, layer by layer, to the probability that the layer's token is the
    /// last layer's. The maps lie beside the model in [`AGREEMENT_FILE`].
    pub const fn agreement(name: &'static str, about: &'static str, base: &'static MeasureKind) -> Self {
        Self::mapped(name, about, base, MapRule::Isotonic)
    }

    /// A measure that maps what `base` says, layer by layer, to the highest level of agreement at which
    /// [`MapRule::MaxCoverage`] would let a token of that confidence leave. The maps lie in the same file.
    pub const fn level(name: &'static str, about: &'static str, base: &'static MeasureKind) -> Self {
        Self::mapped(name, about, base, MapRule::MaxCoverage)
    }

    const fn mapped(
        name: &'static str,
        about: &'static str,
        base: &'static MeasureKind,
        rule: MapRule,
    ) -> Self {
        Self { name, about, load: base.load, flops: base.flops, maps: Some(Mapping { base, rule }) }
    }

    /// Makes the measure for a backbone and a policy that tests after these layers.
    ///
    /// # Errors
    /// [`PolicyError`] when the backbone lacks what the measure needs.
    pub fn make(&self, backbone: &dyn Backbone, exits: Exits) -> Result<Box<dyn Measure>, PolicyError> {
        let measure = (self.load)(backbone)?;
        let num_layers = backbone.shape().num_layers;
        // Only a head that knows a part of the vocabulary has something to test after the last layer.
        let able = measure.layers().unwrap_or(Exits::all_below(num_layers));
        if !able.contains(num_layers) {
            exits.check(num_layers)?;
        }
        if let Some(layer) = exits.layers().find(|&layer| !able.contains(layer)) {
            let reason = format!(
                "cannot test after layer {layer}, but only after {able}: name exits among these, as in \
                 -exits{able}, or train exit heads for all layers"
            );
            return Err(PolicyError::Measure { measure: self.name, reason });
        }
        match self.maps {
            Some(mapping) => agreement::load(self, mapping, measure, backbone, exits),
            None => Ok(measure),
        }
    }
}

/// What earlier tests of the token a confidence depends on, besides the layer's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// It depends on none.
    Nothing,
    /// It depends on where the first test was.
    FirstTest,
    /// It depends on all of them.
    AllTests,
}

/// A confidence measure, loaded for a backbone.
pub trait Measure: Send + Sync {
    /// Begins a step: one token for each row of a batch, taken through the layers.
    fn begin_step(&self) -> Box<dyn StepMeasure + '_>;

    /// What its confidences depend on. A map of them is fitted for each case there is.
    fn memory(&self) -> Memory {
        Memory::AllTests
    }

    /// The layers after which it can test; `None` for all.
    fn layers(&self) -> Option<Exits> {
        None
    }

    /// The sources that what it was loaded with was fitted to, if any: no guarantee may be computed from
    /// these. Those of the maps of agreement come on top of it.
    fn fitted_to(&self) -> Option<&FittedTo> {
        None
    }
}

/// A measure during one step, which may remember what it saw after earlier layers.
pub trait StepMeasure {
    /// Confidence of each entry of a layer. An entry leaves there if it reaches the threshold, from 0 to 1.
    ///
    /// # Errors
    /// The engine fails.
    fn confidence(&mut self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError>;
}

/// What a measure says of one entry after one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confidence {
    /// Compared with the threshold, which lies from 0 to 1: the larger, the surer.
    pub value: f32,
    /// The token that the entry would leave with, where the measure knows it. If it does not, the head is
    /// asked.
    pub token: Option<Token>,
}

impl Named for MeasureKind {
    const WHAT: &'static str = "confidence measure";

    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }
}

impl PartialEq for MeasureKind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for MeasureKind {}

impl PartialOrd for MeasureKind {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for MeasureKind {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name.cmp(other.name)
    }
}

impl fmt::Debug for MeasureKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

impl fmt::Display for MeasureKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

impl FromStr for &'static MeasureKind {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        MEASURES.get(name)
    }
}

impl Serialize for MeasureKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for &'static MeasureKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
