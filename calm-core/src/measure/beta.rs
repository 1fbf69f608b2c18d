use std::path::Path;

use serde::{Deserialize, Serialize};

use super::margin::MARGIN;
use super::{Confidence, FittedTo, Measure, MeasureKind, Memory, StepMeasure};
use crate::backbone::Backbone;
use crate::beta_mixture::BetaMixture;
use crate::error::{DecodeError, PolicyError};
use crate::layer::Layer;

/// The file beside a model that has its mixtures.
pub const BETA_FILE: &str = "calm.beta.json";

/// An estimate of the probability that this layer's token is the last layer's, as
/// [`AGREEMENT`](super::agreement::AGREEMENT) is, but from a mixture of two Beta distributions of the margin
/// (FREE, see [`BetaMixture`]) and not by isotonic regression. Where the mixture's densities cross twice, it
/// falls again while the margin rises.
pub(super) static BETA: MeasureKind = MeasureKind {
    name: "beta",
    about: "probability that the token is the last layer's, from a Beta mixture of the margin",
    load,
    flops: |shape, tests| (MARGIN.flops)(shape, tests),
    maps: None,
};

/// The mixtures of a model, fitted to its own outputs: `calm.beta.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BetaMixtures {
    /// The examples whose full-depth outputs the mixtures were fitted to.
    pub fitted_to: FittedTo,
    /// The mixtures of the layers from 1 to the last but one, in their order.
    pub layers: Vec<BetaMixture>,
}

impl BetaMixtures {
    /// The measure whose confidences the mixtures are of.
    pub fn base() -> &'static MeasureKind {
        &MARGIN
    }

    /// Reads the mixtures of the model in `folder`; `None` if it has none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>, calm_files::Error> {
        let path = folder.join(BETA_FILE);
        if path.is_file() { calm_files::read_json(&path).map(Some) } else { Ok(None) }
    }

    /// Writes the mixtures into the folder of their model.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), calm_files::Error> {
        calm_files::write_json(&folder.join(BETA_FILE), self)
    }
}

/// The margin, mapped by a mixture at each layer.
struct Beta {
    margin: Box<dyn Measure>,
    mixtures: BetaMixtures,
}

fn load(backbone: &dyn Backbone) -> Result<Box<dyn Measure>, PolicyError> {
    let failed = |reason| PolicyError::Measure { measure: BETA.name, reason };
    let mixtures = backbone.folder().map_or(Ok(None), BetaMixtures::read);
    let mixtures = mixtures.map_err(|error| failed(format!("cannot read its mixtures: {error}")))?;
    let fit = "which `calm fit-confidence` fits";
    let mixtures = mixtures.ok_or_else(|| failed(format!("needs {BETA_FILE} beside the model, {fit}")))?;
    let (found, expected) = (mixtures.layers.len(), backbone.shape().num_layers.saturating_sub(1));
    if found < expected {
        return Err(failed(format!("has mixtures for {found} layers and needs {expected}, {fit}")));
    }
    Ok(Box::new(Beta { margin: (MARGIN.load)(backbone)?, mixtures }))
}

impl Measure for Beta {
    fn begin_step(&self) -> Box<dyn StepMeasure + '_> {
        Box::new(Step { margin: self.margin.begin_step(), layers: &self.mixtures.layers })
    }

    fn memory(&self) -> Memory {
        self.margin.memory()
    }

    fn fitted_to(&self) -> Option<&FittedTo> {
        Some(&self.mixtures.fitted_to)
    }
}

struct Step<'a> {
    margin: Box<dyn StepMeasure + 'a>,
    layers: &'a [BetaMixture],
}

impl StepMeasure for Step<'_> {
    fn confidence(&mut self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError> {
        let mut found = self.margin.confidence(layer)?;
        let mixture = layer.number().checked_sub(1).and_then(|index| self.layers.get(index));
        for confidence in &mut found {
            let posterior = |mixture: &BetaMixture| mixture.posterior(f64::from(confidence.value)) as f32;
            // After the last layer nothing is known, and nothing is decided.
            confidence.value = mixture.map_or(f32::NAN, posterior);
        }
        Ok(found)
    }
}
