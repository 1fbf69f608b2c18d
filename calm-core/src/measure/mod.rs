//! Confidence measures: what is known after a layer, mapped to a number that is compared with the threshold.
//!
//! A measure is a file with a [`MeasureKind`] and a line in [`MEASURES`], or a crate of its own that adds its
//! kind to that table when the program starts.

mod agreement;
mod beta;
mod classifier;
mod fitted;
mod margin;
mod pruned;
mod shortlist;
mod softmax;
mod state;

use std::fmt;
use std::str::FromStr;

use calm_names::UnknownName;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::agreement::{AGREEMENT_FILE, AgreementMap, AgreementMaps, FittedTo};
pub use self::beta::{BETA_FILE, BetaMixtures};
pub use self::classifier::ExitClassifier;
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
    /// The measure whose confidence is mapped to a probability, for one that [`MeasureKind::agreement`] made.
    pub maps: Option<&'static MeasureKind>,
}

impl MeasureKind {
    /// A measure that maps what `base` says, layer by layer, to the probability that the layer's token is the
    /// last layer's. The maps lie beside the model in [`AGREEMENT_FILE`].
    pub const fn agreement(name: &'static str, about: &'static str, base: &'static MeasureKind) -> Self {
        Self { name, about, load: base.load, flops: base.flops, maps: Some(base) }
    }

    /// Makes the measure for a backbone and a policy that tests after these layers.
    ///
    /// # Errors
    /// [`PolicyError`] when the backbone lacks what the measure needs.
    pub fn make(&self, backbone: &dyn Backbone, exits: Exits) -> Result<Box<dyn Measure>, PolicyError> {
        let measure = (self.load)(backbone)?;
        match self.maps {
            Some(base) => agreement::load(self, base, measure, backbone, exits),
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
    /// Compared with the threshold.
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
