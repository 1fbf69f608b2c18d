//! A threshold certified for one model on one's own data, and the file that says so.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use calm_calibrate::{Calibration, CalibrationOptions, LossTable, calibrate};
use calm_checkpoint::{Model, checkpoint_fingerprint};
use calm_core::{Exits, PolicyError, PolicySpec};
use calm_data::{Columns, DatasetPaths};
use calm_engine::engine::Engine;
use calm_files::hex;
use calm_metrics::Loss;
use calm_names::counted;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::config::{DatasetPlan, Objective, ObjectiveKind, Series, policy_at};
use crate::dataset::{Dataset, Split};
use crate::fitted::check_not_fitted_to;
use crate::jobs::{OtherRuns, Work};
use crate::outputs::SplitOutputs;
use crate::runner::{Decoding, common, decode_missing};
use crate::settings::to_decode;
use crate::statistics::{loss_table, losses_of_series};
use crate::unit::Store;

/// The key of a certificate's hash, which is that of all other keys.
const HASH: &str = "sha256";

/// What to certify, all of it fixed before anything is decoded.
#[derive(Debug, Clone)]
pub struct CertifyPlan {
    /// The calibration examples.
    pub data: DatasetPlan,
    /// Decides the order of the examples, and which are taken if `data` has a limit.
    pub seed: u64,
    /// The policy and its thresholds.
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

/// A certified threshold with all that it holds for: the model, the policy, and how texts were decoded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// The threshold and how it came about.
    #[serde(flatten)]
    pub calibration: Calibration,
    /// What is bounded.
    pub objective: ObjectiveKind,
    /// What measures it.
    pub metric: Loss,
    /// The policy, with a star for the threshold, such as `calm-softmax-*-tau4`.
    pub policy: String,
    /// Longest output in tokens.
    pub max_tokens: usize,
    /// Longer sources were cut.
    pub max_source_tokens: Option<usize>,
    /// Hash of the weights, the configuration and the tokenizer, with the type that weights are rounded to.
    pub model_fingerprint: String,
    /// The files of the examples.
    pub data: DatasetPaths,
    /// What sources were made of, the prefix included.
    pub columns: Columns,
    /// The loss that the expected one at each threshold below 1 lies below, each by itself but for the
    /// probability epsilon; none in files that do not say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upper_bounds: Vec<f64>,
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
    let mut engine = load_engine()?;
    let num_layers = engine.model().shape().num_layers;
    let settings: Vec<PolicySpec> =
        std::iter::once(PolicySpec::full()).chain(plan.series.policies()).collect();
    for policy in &settings {
        check_policy(*policy, engine.model())?;
    }
    check_not_fitted_to(&engine, &settings, &dataset, plan.max_source_tokens)?;
    let common = common(&engine, plan.max_tokens, plan.max_source_tokens, plan.batch_size);
    let (store, policies) = (Store::new(work), to_decode(&settings, num_layers));
    let work = [Work { dataset: &dataset, policies: policies.clone() }];
    let (common, store, other_runs) = (&common, &store, OtherRuns::Overwrite);
    decode_missing(&mut engine, &Decoding { common, work: &work, store, other_runs, only: None })?;

    let outputs = SplitOutputs::read(store, common, &dataset, &policies, num_layers)?;
    let losses = losses_of_series(&plan.objective, &plan.series, &outputs)?;
    let order = dataset.groups.random_order(plan.seed);
    let table = loss_table(&plan.series.levels(num_layers), &losses, &order)?;
    let calibration = calibrate(&table, &plan.options)?;
    let mut certificate = Certificate {
        calibration,
        objective: plan.objective.kind,
        metric: plan.objective.loss,
        policy: plan.series.family().to_owned(),
        max_tokens: plan.max_tokens,
        max_source_tokens: plan.max_source_tokens,
        model_fingerprint: common.model.clone(),
        data: plan.data.paths.clone(),
        columns: plan.data.columns.clone(),
        upper_bounds: upper_bounds(&table, &plan.options)?,
        average_layers: 0.0,
        num_layers,
    };
    certificate.average_layers = outputs.of(certificate.policy()?)?.cost().average_layers();
    Ok(certificate)
}

/// An upper confidence bound of the expected loss at each threshold below 1. The least threshold whose bound
/// and those of all thresholds above it are at most delta is what fixed-sequence testing certifies.
///
/// # Errors
/// A loss lies outside its range, or the p-value does not hold for the kind of loss.
pub fn upper_bounds(table: &LossTable, options: &CalibrationOptions) -> anyhow::Result<Vec<f64>> {
    let tested = (0..table.thresholds().len()).filter(|&index| table.thresholds()[index] < 1.0);
    let bound = |index| {
        let CalibrationOptions { p_value, loss_kind, epsilon, .. } = options;
        Ok(p_value.upper_bound(table.losses(index), *loss_kind, *epsilon)?)
    };
    tested.map(bound).collect()
}

/// Fails where a policy does not fit the model, or no guarantee can be given for it.
///
/// # Errors
/// The model lacks what the policy needs, or outputs depend on those before them: then losses of examples do
/// not come from one distribution.
pub(crate) fn check_policy(policy: PolicySpec, model: &dyn Model) -> anyhow::Result<()> {
    let made = policy.make(model).with_context(|| format!("the setting {policy} does not fit the model"))?;
    ensure!(
        !made.learns_from_outputs(),
        "{policy} learns from the outputs before, so that no threshold of it can be certified"
    );
    Ok(())
}

impl Certificate {
    /// The policy that keeps the guarantee; the full model if nothing was certified.
    ///
    /// # Errors
    /// The threshold or the decay of a file that somebody edited is out of range.
    pub fn policy(&self) -> anyhow::Result<PolicySpec> {
        // Whatever the star of the family stands for.
        match self.calibration.fallback {
            true => Ok(PolicySpec::full()),
            false => Ok(policy_at(&self.policy, self.calibration.threshold, self.num_layers)?),
        }
    }

    /// Reads a file that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// The file cannot be read, was not made for a model, is of an earlier version, or was damaged or edited.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let text = calm_files::read_to_string(path)?;
        let not_one = || format!("{name} is not a calibration of a model");
        let mut keys: Map<String, Value> = serde_json::from_str(&text).with_context(not_one)?;
        ensure!(keys.contains_key("model_fingerprint"), "{}", not_one());
        let anew = || format!("make it anew with `{}`", command(path, &keys));
        let Some(hash) = keys.get(HASH).cloned() else {
            bail!(
                "{name} is of an earlier version, and has no hash that tells whether it is as it was written: {}",
                anew()
            );
        };
        if hash != hash_of(&keys) {
            bail!("{name} is not as it was written, so that nothing is guaranteed: {}", anew());
        }
        ensure!(
            keys.contains_key("policy"),
            "{name} is of an earlier version, and does not name its policy: {}",
            anew()
        );
        keys.remove(HASH);
        let certificate: Self = serde_json::from_value(Value::Object(keys)).with_context(not_one)?;
        certificate.check().with_context(|| format!("{name} is no valid calibration"))?;
        Ok(certificate)
    }

    /// Writes it as JSON, with a hash of all that it says.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Hashed<'a> {
            #[serde(flatten)]
            certificate: &'a Certificate,
            sha256: String,
        }
        let keys = serde_json::from_str(&serde_json::to_string(self)?)?;
        Ok(calm_files::write_json(path, &Hashed { certificate: self, sha256: hash_of(&keys) })?)
    }

    /// Fails unless the values agree with each other.
    fn check(&self) -> anyhow::Result<()> {
        self.calibration.check()?;
        PolicySpec::of_family(&self.policy, 1.0)?;
        let policy = self.policy()?;
        ensure!(self.max_tokens >= 1, "outputs of at most 0 tokens");
        ensure!(self.max_source_tokens != Some(0), "sources of at most 0 tokens");
        // A head that knows a part of the vocabulary is tested after the last layer, too.
        let mut exits = policy.parameters().exits.into_iter().flat_map(Exits::layers);
        if let Some(layer) = exits.find(|&layer| layer > self.num_layers) {
            return Err(PolicyError::Exits { layer, num_layers: self.num_layers }.into());
        }
        let (layers, num_layers) = (self.average_layers, self.num_layers);
        ensure!(
            num_layers >= 1 && (1.0..=num_layers as f64).contains(&layers),
            "{layers} of {} on average",
            counted(num_layers, "layer")
        );
        let is_full = policy.is_full(num_layers);
        ensure!(!is_full || layers == num_layers as f64, "the full model with {layers} layers on average");
        Ok(())
    }

    /// # Errors
    /// The certificate is for another model than the one with this fingerprint and so many decoder layers, or
    /// for other arithmetic.
    pub fn check_model(&self, fingerprint: &str, num_layers: usize) -> anyhow::Result<()> {
        let own = &self.model_fingerprint;
        if own != fingerprint {
            let fingerprints = format!("(fingerprint {own:.12}, this one has {fingerprint:.12})");
            if checkpoint_fingerprint(own) == checkpoint_fingerprint(fingerprint) {
                bail!(
                    "the calibration was made with other arithmetic {fingerprints}, which --dtype, --cache-dtype and \
                     --engine choose"
                );
            }
            bail!("the calibration was made with another model {fingerprints}");
        }
        let layers = counted(self.num_layers, "decoder layer");
        ensure!(
            self.num_layers == num_layers,
            "the calibration is of {layers}, but the model has {num_layers}"
        );
        Ok(())
    }

    /// What a program applies that takes the policy from here, in a line.
    ///
    /// # Errors
    /// The certificate is of no policy that this program has.
    pub fn applied(&self) -> anyhow::Result<String> {
        let Calibration { delta, epsilon, examples, .. } = &self.calibration;
        let examples = match &self.columns.group {
            Some(column) => format!("{} by {column}", counted(*examples, "group")),
            None => counted(*examples, "example"),
        };
        let mut line = format!(
            "{}, calibrated on {examples} for the {} objective ({}) with delta {delta} and epsilon {epsilon}; outputs of \
             at most {}",
            self.policy()?,
            self.objective,
            self.metric,
            counted(self.max_tokens, "token")
        );
        if let Some(limit) = self.max_source_tokens {
            line += &format!(", sources cut to {limit}");
        }
        let Columns { prefix, source, context, chat, .. } = &self.columns;
        if !prefix.is_empty() {
            line += &format!(", {prefix:?} in front of sources that do not begin with it");
        }
        if *chat {
            line += ", sources as what a user says to the model";
        }
        if let Some(context) = context {
            line += &format!(
                "; a source has to be `{source} context: {context}` of these columns, as in calibration"
            );
        }
        Ok(line)
    }
}

/// What a file that a certificate is to be written to would lose by it: `None` where that is a certificate of
/// the same model, lengths, data and columns, or nothing.
pub fn lost_by_writing(path: &Path, plan: &CertifyPlan, fingerprint: &str) -> Option<&'static str> {
    /// What results of all versions have, and what later ones added.
    #[derive(Deserialize)]
    struct Existing {
        model_fingerprint: String,
        max_tokens: usize,
        max_source_tokens: Option<usize>,
        data: DatasetPaths,
        columns: Option<Columns>,
    }
    // Devices and pipes lose nothing.
    if !path.is_file() || path.metadata().is_ok_and(|file| file.len() == 0) {
        return None;
    }
    let Ok(existing) = calm_files::read_json::<Existing>(path) else {
        return Some("something else than a calibration");
    };
    let lengths = (existing.max_tokens, existing.max_source_tokens);
    let parts = [
        ("the calibration of another model or type of weights", existing.model_fingerprint != fingerprint),
        ("a calibration with other maximal lengths", lengths != (plan.max_tokens, plan.max_source_tokens)),
        ("a calibration on other data", existing.data != plan.data.paths),
        (
            "a calibration with another prefix or other columns",
            existing.columns.is_some_and(|columns| columns != plan.data.columns),
        ),
    ];
    parts.into_iter().find(|(_, differs)| *differs).map(|(part, _)| part)
}

/// SHA-256 of all keys but the hash, in the order of their names.
fn hash_of(keys: &Map<String, Value>) -> String {
    let others: std::collections::BTreeMap<_, _> = keys.iter().filter(|(key, _)| *key != HASH).collect();
    hex(&Sha256::digest(serde_json::to_vec(&others).unwrap_or_default()))
}

/// The command that makes a certificate anew, as far as its keys tell.
fn command(path: &Path, keys: &Map<String, Value>) -> String {
    let mut command = "calm calibrate --model DIR".to_owned();
    let flags = [
        "data",
        "policy",
        "measure",
        "decay",
        "exits",
        "thresholds",
        "objective",
        "metric",
        "delta",
        "epsilon",
        "p_value",
        "procedure",
        "max_tokens",
        "max_source_tokens",
    ];
    for key in flags {
        let word = |value: &Value| match value {
            // A shell would look for files.
            Value::String(text) if text.contains('*') => Some(format!("'{text}'")),
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let value = match keys.get(key) {
            Some(Value::Array(items)) => {
                items.iter().map(word).collect::<Option<Vec<_>>>().map(|words| words.join(","))
            }
            Some(value) => word(value),
            None => None,
        };
        if let Some(value) = value {
            command += &format!(" --{} {value}", key.replace('_', "-"));
        }
    }
    command + &format!(" --output {} --overwrite", path.display())
}
