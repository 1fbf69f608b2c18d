use std::path::Path;

use serde::{Deserialize, Serialize};

use super::margin::MARGIN;
use super::shortlist::SHORTLIST;
use super::{Confidence, Mapping, Measure, MeasureKind, Memory, StepMeasure};
use crate::backbone::Backbone;
use crate::error::{DecodeError, PolicyError};
use crate::exit_heads::ExitHeads;
use crate::exits::Exits;
use crate::layer::Layer;
use crate::monotone::{MonotoneMap, Observation};

/// The file beside a model that has its maps.
pub const AGREEMENT_FILE: &str = "calm.agreement.json";

/// An estimate of the probability that this layer's token is the last layer's, from the margin. A margin
/// means something else at every layer; a probability does not, so that one threshold fits all of them.
pub(super) static AGREEMENT: MeasureKind = MeasureKind::agreement(
    "agreement",
    "probability that the token is the last layer's, from the margin",
    &MARGIN,
);

/// The same from the margin at the first test, and among the 64 tokens that were best there at later ones.
pub(super) static AGREEMENT_PRUNED: MeasureKind = MeasureKind::agreement(
    "agreement_pruned",
    "the same with later tests among the 64 best tokens of the first one",
    &SHORTLIST,
);

/// The maps of a model, fitted to its own outputs: `calm.agreement.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgreementMaps {
    /// The examples whose full-depth outputs the maps were fitted to.
    pub fitted_to: FittedTo,
    /// The fingerprint of the exit heads that were there then, which those of measures of heads hold for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_heads: Option<String>,
    /// The maps of all measures, layers and tests before.
    pub maps: Vec<AgreementMap>,
}

/// What maps were fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FittedTo {
    /// Number of output tokens.
    pub tokens: usize,
    /// The first 16 hexadecimal digits of the SHA-256 of each source's tokens, ascending. A guarantee
    /// must not be computed from any of them.
    pub sources: Vec<String>,
}

/// What one measure's confidence means at one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgreementMap {
    /// Name of the measure that is mapped.
    pub measure: String,
    /// What the map gives.
    #[serde(default, skip_serializing_if = "MapRule::is_default")]
    pub rule: MapRule,
    /// The tests that the confidence depends on, the last of which is that of the layer itself.
    pub tests: Exits,
    /// From the confidence to what the rule gives.
    #[serde(flatten)]
    pub map: MonotoneMap,
}

/// How a map is fitted to confidences and to whether the layer's token was the last layer's, and with that
/// what it gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapRule {
    /// The probability of agreement at a confidence, by isotonic regression ([`MonotoneMap::fit`]).
    #[default]
    Isotonic,
    /// The highest level of agreement at which a token of a confidence leaves, where each layer's threshold
    /// is the lowest confidence from which on the share of agreeing tokens is still that level
    /// ([`MonotoneMap::fit_levels`]): the rule `max_coverage` of Valade's calibration (BranchyLLM). Where no
    /// confidence keeps a level no token leaves, for which that takes the highest confidence it has seen.
    ///
    /// A level is no promise. It is a share of single tokens at one layer, whichever of them would have left
    /// before; along outputs of the full model and not along those of early exits; and the observed share,
    /// without a bound for what the examples do not show.
    MaxCoverage,
}

impl MapRule {
    /// Fits a map by this rule; `None` if no observation has numbers.
    pub fn fit(self, observations: impl IntoIterator<Item = Observation>) -> Option<MonotoneMap> {
        match self {
            Self::Isotonic => MonotoneMap::fit(observations),
            Self::MaxCoverage => MonotoneMap::fit_levels(observations),
        }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl AgreementMaps {
    /// Reads the maps of the model in `folder`; `None` if it has none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>, calm_files::Error> {
        let path = folder.join(AGREEMENT_FILE);
        if path.is_file() { calm_files::read_json(&path).map(Some) } else { Ok(None) }
    }

    /// Writes the maps into the folder of their model.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), calm_files::Error> {
        calm_files::write_json(&folder.join(AGREEMENT_FILE), self)
    }

    /// The map of a measure that has seen `tests`, the last of them just now.
    pub fn get(&self, mapping: Mapping, tests: Exits) -> Option<&MonotoneMap> {
        let Mapping { base, rule } = mapping;
        let is_it = |map: &&AgreementMap| map.measure == base.name && map.rule == rule && map.tests == tests;
        self.maps.iter().find(is_it).map(|map| &map.map)
    }
}

impl Memory {
    /// The tests that a confidence at `layer` depends on, of all at `exits`; the last one is its own.
    pub fn tests(self, exits: Exits, layer: usize) -> Exits {
        match self {
            Memory::Nothing => Exits::of(layer),
            Memory::FirstTest => exits.first_and(layer),
            Memory::AllTests => exits.up_to(layer),
        }
    }
}

/// A measure whose confidences are mapped.
struct Agreement {
    base: Box<dyn Measure>,
    /// By layer, from 1; empty where nothing is tested.
    maps: Vec<Option<MonotoneMap>>,
}

/// Loads the maps that `kind` needs for tests at `exits`.
pub(super) fn load(
    kind: &MeasureKind,
    mapping: Mapping,
    measure: Box<dyn Measure>,
    backbone: &dyn Backbone,
    exits: Exits,
) -> Result<Box<dyn Measure>, PolicyError> {
    let failed = |reason| PolicyError::Measure { measure: kind.name, reason };
    let maps = backbone.folder().map_or(Ok(None), AgreementMaps::read);
    let maps = maps.map_err(|error| failed(format!("cannot read its maps: {error}")))?;
    let fit = "which `calm fit-confidence` fits";
    let maps = maps.ok_or_else(|| failed(format!("needs {AGREEMENT_FILE} beside the model, {fit}")))?;
    if measure.layers().is_some() {
        let heads = backbone.exit_heads().map(ExitHeads::fingerprint).unwrap_or_default();
        if maps.exit_heads.as_deref().unwrap_or_default() != heads {
            let reason =
                "has maps that were fitted to other exit heads: fit them anew with `calm fit-confidence`";
            return Err(failed(reason.to_owned()));
        }
    }
    let memory = measure.memory();
    let mut by_layer = vec![None; exits.layers().last().unwrap_or(0) + 1];
    for layer in exits.layers() {
        let tests = memory.tests(exits, layer);
        let map = maps.get(mapping, tests);
        let missing = || failed(format!("has no map for layer {layer} after tests at {tests}, {fit}"));
        by_layer[layer] = Some(map.ok_or_else(missing)?.clone());
    }
    Ok(Box::new(Agreement { base: measure, maps: by_layer }))
}

impl Measure for Agreement {
    fn begin_step(&self) -> Box<dyn StepMeasure + '_> {
        Box::new(Step { base: self.base.begin_step(), maps: &self.maps })
    }

    fn memory(&self) -> Memory {
        self.base.memory()
    }

    fn layers(&self) -> Option<Exits> {
        self.base.layers()
    }

    fn fitted_to(&self) -> Option<&FittedTo> {
        self.base.fitted_to()
    }
}

struct Step<'a> {
    base: Box<dyn StepMeasure + 'a>,
    maps: &'a [Option<MonotoneMap>],
}

impl StepMeasure for Step<'_> {
    fn confidence(&mut self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError> {
        let mut found = self.base.confidence(layer)?;
        let map = self.maps.get(layer.number()).and_then(Option::as_ref);
        for confidence in &mut found {
            // A policy asks only where it said it would; elsewhere nothing is known.
            confidence.value = map.map_or(f32::NAN, |map| map.at(confidence.value));
        }
        Ok(found)
    }
}
