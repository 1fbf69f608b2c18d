//! A threshold certified for one model on one's own data, and the file that says so.

use std::path::Path;

use anyhow::{Context, bail};
use calm_calibrate::{Calibration, CalibrationOptions, calibrate};
use calm_core::{Exits, MeasureKind, PolicySpec, Threshold};
use calm_data::DatasetPaths;
use calm_engine::engine::Engine;
use calm_metrics::Loss;
use serde::{Deserialize, Serialize};

use crate::config::{DatasetPlan, Objective, ObjectiveKind, Series};
use crate::dataset::{Dataset, Split};
use crate::fitted::check_not_fitted_to;
use crate::outputs::SplitOutputs;
use crate::runner::{Work, common, decode_missing};
use crate::settings::to_decode;
use crate::statistics::loss_table;
use crate::unit::Store;

/// What to certify, all of it fixed before anything is decoded.
#[derive(Debug, Clone)]
pub struct CertifyPlan {
    /// The calibration examples.
    pub data: DatasetPlan,
    /// Decides the order of the examples, and which are taken if `data` has a limit.
    pub seed: u64,
    /// The measure and its thresholds.
    pub series: Series,
    /// What is bounded; its deltas are not looked at.
    pub objective: Objective,
    /// How it is tested.
    pub options: CalibrationOptions,
    /// Longest output in tokens, and N of the decaying threshold.
    pub max_tokens: usize,
    /// Longer sources are cut.
    pub max_source_tokens: Option<usize>,
    /// Examples decoded together.
    pub batch_size: usize,
    /// Examples of a unit of work.
    pub shard_size: usize,
}

/// A certified threshold with all that it holds for: the model, the measure, and how texts were decoded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// The threshold and how it came about.
    #[serde(flatten)]
    pub calibration: Calibration,
    /// What is bounded.
    pub objective: ObjectiveKind,
    /// What measures it.
    pub metric: Loss,
    /// The confidence measure.
    pub measure: &'static MeasureKind,
    /// Decay of the threshold.
    pub decay: Option<f64>,
    /// Layers after which is tested; all but the last if the key is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exits: Option<Exits>,
    /// Longest output in tokens.
    pub max_tokens: usize,
    /// Longer sources were cut.
    pub max_source_tokens: Option<usize>,
    /// Hash of the weights, the configuration and the tokenizer.
    pub model_fingerprint: String,
    /// The files of the examples.
    pub data: DatasetPaths,
    /// Mean exit layer of the tokens of the calibration examples at the threshold.
    pub average_layers: f64,
    /// Layers of the full model.
    pub num_layers: usize,
}

/// Decodes the examples with the full model and at every threshold, and certifies one. What is decoded is
/// kept below the folder `work`, so that an interrupted call goes on where it stopped and another delta costs
/// no decoding.
///
/// # Errors
/// Data or model cannot be read, the measure does not fit the model, decoding fails, a file cannot be
/// written.
pub fn certify(
    plan: &CertifyPlan,
    work: &Path,
    load_engine: impl FnOnce() -> anyhow::Result<Engine>,
) -> anyhow::Result<Certificate> {
    let dataset = Dataset::read(Split::Calibration, &plan.data, plan.seed, plan.shard_size)?;
    let engine = load_engine()?;
    let num_layers = engine.model().shape().num_layers;
    let settings: Vec<PolicySpec> =
        std::iter::once(PolicySpec::full()).chain(plan.series.policies()).collect();
    for policy in &settings {
        policy.make(engine.model())?;
    }
    check_not_fitted_to(&engine, &settings, &dataset, plan.max_source_tokens)?;
    let common = common(&engine, plan.max_tokens, plan.max_source_tokens, plan.batch_size);
    let (store, policies) = (Store::new(work), to_decode(&settings, num_layers));
    let decoding = Work { dataset: &dataset, policies: policies.clone() };
    decode_missing(engine, &common, std::slice::from_ref(&decoding), &store)?;

    let outputs = SplitOutputs::read(&store, &common, &dataset, &policies, num_layers)?;
    let losses = plan.series.policies().map(|policy| outputs.losses(&plan.objective, policy));
    let losses = losses.collect::<anyhow::Result<Vec<_>>>()?;
    let table = loss_table(&plan.series, &losses, &dataset.random_order(plan.seed))?;
    let calibration = calibrate(&table, &plan.options)?;
    let mut certificate = Certificate {
        calibration,
        objective: plan.objective.kind,
        metric: plan.objective.loss,
        measure: plan.series.measure,
        decay: plan.series.decay,
        exits: plan.series.exits,
        max_tokens: plan.max_tokens,
        max_source_tokens: plan.max_source_tokens,
        model_fingerprint: common.model.clone(),
        data: plan.data.paths.clone(),
        average_layers: 0.0,
        num_layers,
    };
    certificate.average_layers = outputs.of(certificate.policy()?)?.cost().average_layers();
    Ok(certificate)
}

impl Certificate {
    /// The policy that keeps the guarantee; the full model if nothing was certified.
    ///
    /// # Errors
    /// The threshold or the decay of a file that somebody edited is out of range.
    pub fn policy(&self) -> anyhow::Result<PolicySpec> {
        let threshold = Threshold::new(self.calibration.threshold, self.decay)?;
        Ok(PolicySpec::calm(self.measure, threshold).with_exits(self.exits))
    }

    /// Reads a file that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// The file cannot be read, or was not made for a model.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        serde_json::from_str(&text).with_context(|| format!("{name} is not a calibration of a model"))
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        Ok(calm_files::write_json(path, self)?)
    }

    /// # Errors
    /// The certificate is for another model than the one with this fingerprint.
    pub fn check_model(&self, fingerprint: &str) -> anyhow::Result<()> {
        if self.model_fingerprint != fingerprint {
            bail!(
                "the calibration was made with another model (fingerprint {:.12}, this one has {fingerprint:.12})",
                self.model_fingerprint
            );
        }
        Ok(())
    }
}
