use std::path::PathBuf;

use calm_calibrate::{
    CalibrationOptions, ErrorProbability, LossKind, PValue, Procedure, Split, Tolerance, TrialOptions,
};
use calm_core::{Parameters, PolicyError, PolicySpec, Threshold};
use calm_data::{Columns, DatasetPaths};
use calm_engine::limits::{AT_LEAST_ONE, Limit, TOKENS};
use calm_files::{Document, Error};
use calm_metrics::{Loss, Metric};
use calm_names::names;
use serde::{Deserialize, Serialize};

use super::{RawConfig, RawSeries, StaticLayers};

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of the run.
    pub name: String,
    /// Decides which examples are taken.
    pub seed: u64,
    /// Worker threads; `None` for all cores.
    pub threads: Option<usize>,
    /// Checkpoint directory.
    pub model: PathBuf,
    /// What every setting is measured on.
    pub test: DatasetPlan,
    /// What thresholds are certified with.
    pub calibration: DatasetPlan,
    /// Longest output in tokens.
    pub max_tokens: usize,
    /// Longer sources are cut.
    pub max_source_tokens: Option<usize>,
    /// Examples decoded together.
    pub batch_size: usize,
    /// Examples of a unit of work.
    pub shard_size: usize,
    /// A grid of thresholds for each measure and each other policy that has one.
    pub series: Vec<Series>,
    /// Static depths, not yet compared with the model's.
    pub static_layers: StaticLayers,
    /// Whether to run the oracle.
    pub oracle: bool,
    /// Other policies, not yet compared with the model.
    pub policies: Vec<PolicySpec>,
    /// Guarantees to certify.
    pub objectives: Vec<Objective>,
    /// Probability that a guarantee fails.
    pub epsilon: ErrorProbability,
    /// The family-wise procedure.
    pub procedure: Procedure,
    /// How often each calibration is repeated.
    pub trials: TrialOptions,
    /// Quality in figures and in the final table.
    pub quality: Metric,
    /// What all this was made from, overrides included.
    pub raw: RawConfig,
}

/// One dataset.
#[derive(Debug, Clone)]
pub struct DatasetPlan {
    /// The files of the dataset.
    pub paths: DatasetPaths,
    /// Examples to take; `None` for all.
    pub limit: Option<usize>,
    /// Where id, source and target are.
    pub columns: Columns,
}

/// Policies that differ in their thresholds alone, the most conservative first: a line in the figures,
/// and the hypotheses of a calibration in the order of testing.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    family: String,
    thresholds: Vec<f64>,
    policies: Vec<PolicySpec>,
}

impl Series {
    /// The policies of a family with these thresholds, in any order. `static-*` has numbers of layers for
    /// thresholds.
    ///
    /// # Errors
    /// There is no such family, a threshold is out of its range, or there is none.
    pub fn new(family: &str, thresholds: &[f64]) -> Result<Self, PolicyError> {
        let mut thresholds = thresholds.to_vec();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        let policies = thresholds.iter().map(|&threshold| PolicySpec::of_family(family, threshold));
        let policies: Vec<PolicySpec> = policies.collect::<Result<_, _>>()?;
        if policies.is_empty() {
            return Err(PolicyError::Form(format!("`{family}` has no thresholds")));
        }
        Ok(Self { family: family.to_owned(), thresholds, policies })
    }

    /// The policies with a star for the threshold, such as `calm-softmax-*-tau4`.
    pub fn family(&self) -> &str {
        &self.family
    }

    /// What the policies have in common; the threshold is the first one's.
    pub fn parameters(&self) -> &Parameters {
        self.policies[0].parameters()
    }

    /// The decay of the thresholds.
    pub fn decay(&self) -> Option<f64> {
        self.parameters().threshold.and_then(|threshold| threshold.decay())
    }

    /// What stands for the star, descending.
    pub fn thresholds(&self) -> &[f64] {
        &self.thresholds
    }

    /// The thresholds as calibrations know them, where 1 is the full model: numbers of layers as shares of
    /// all layers.
    pub fn levels(&self, num_layers: usize) -> Vec<f64> {
        let all = if counts_layers(&self.family) { num_layers as f64 } else { 1.0 };
        self.thresholds.iter().map(|threshold| threshold / all).collect()
    }

    /// The policy at each threshold.
    pub fn policies(&self) -> impl Iterator<Item = PolicySpec> {
        self.policies.iter().copied()
    }

    /// The name in figures and tables: that of the measure for calm, the family's for others.
    pub fn label(&self) -> String {
        label(&self.family)
    }
}

/// Whether the star of a family stands for a number of layers.
fn counts_layers(family: &str) -> bool {
    PolicySpec::of_family(family, 0.5).is_err()
}

/// The policy of a family at a level of [`Series::levels`].
///
/// # Errors
/// There is no such family.
pub fn policy_at(family: &str, level: f64, num_layers: usize) -> Result<PolicySpec, PolicyError> {
    let number = if counts_layers(family) { (level * num_layers as f64).round() } else { level };
    PolicySpec::of_family(family, number)
}

/// The name of a family in figures and tables.
pub fn label(family: &str) -> String {
    let without_star = || family.replace("-*", "");
    let Ok(policy) = PolicySpec::of_family(family, 1.0) else { return without_star() };
    let Parameters { measure, threshold, exits, .. } = *policy.parameters();
    let decay = threshold.and_then(|threshold| threshold.decay()).filter(|decay| *decay > 0.0);
    let Some(measure) = measure.filter(|_| policy.kind().name == "calm") else {
        return without_star();
    };
    let decay = decay.map(|decay| format!("τ = {decay}"));
    let exits = exits.map(|exits| format!("at {exits}"));
    let parts: Vec<String> = decay.into_iter().chain(exits).collect();
    if parts.is_empty() { measure.name.to_owned() } else { format!("{measure} ({})", parts.join(", ")) }
}

/// A kind of guarantee with the tolerances to certify.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// What is bounded.
    pub kind: ObjectiveKind,
    /// What measures it.
    pub loss: Loss,
    /// Which values it takes.
    pub loss_kind: LossKind,
    /// The p-value of each threshold.
    pub p_value: PValue,
    /// Tolerances, ascending.
    pub deltas: Vec<Tolerance>,
}

/// What a guarantee bounds (paper Eq. 1 and 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ObjectiveKind {
    /// The expected distance to the full model's output.
    Textual,
    /// The expected increase of the risk against references over the full model's, of which only the examples
    /// that lose count (Eq. 11).
    Risk,
    /// The same with the examples that gain.
    SignedRisk,
}

names!(ObjectiveKind, "objective", {
    Textual => "textual",
    Risk => "risk",
    SignedRisk => "signed-risk",
});

/// Which values the loss of an objective takes. The positive part of a difference of two binary losses is
/// binary too; the mean of a group of examples is not.
pub fn loss_kind(objective: ObjectiveKind, loss: Loss, is_of_groups: bool) -> LossKind {
    match (objective, loss.kind()) {
        (ObjectiveKind::SignedRisk, _) => LossKind::Difference,
        (_, calm_metrics::LossKind::Binary) if !is_of_groups => LossKind::Binary,
        (_, calm_metrics::LossKind::Binary | calm_metrics::LossKind::UnitInterval) => LossKind::UnitInterval,
    }
}

impl Plan {
    /// How to calibrate for one tolerance.
    pub fn calibration_options(&self, objective: &Objective, delta: Tolerance) -> CalibrationOptions {
        CalibrationOptions {
            delta,
            epsilon: self.epsilon,
            p_value: objective.p_value,
            procedure: self.procedure.clone(),
            loss_kind: objective.loss_kind,
        }
    }

    /// The distance of textual consistency.
    pub fn textual_distance(&self) -> Loss {
        self.raw.calibration.textual_distance
    }

    /// The risk of risk consistency.
    pub fn risk(&self) -> Loss {
        self.raw.calibration.risk
    }

    pub(super) fn check(raw: RawConfig, document: &Document) -> Result<Self, Error> {
        let name = raw.name.trim();
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            return Err(document.invalid("name", "must be fit for the name of a folder"));
        }
        let numbers = [
            ("threads", raw.threads, Limit::threads()),
            ("data.test_examples", raw.data.test_examples, AT_LEAST_ONE),
            ("data.calibration_examples", raw.data.calibration_examples, AT_LEAST_ONE),
            ("decode.max_tokens", Some(raw.decode.max_tokens), TOKENS),
            ("decode.max_source_tokens", raw.decode.max_source_tokens, TOKENS),
            ("decode.batch_size", Some(raw.decode.batch_size), AT_LEAST_ONE),
            ("decode.shard_size", Some(raw.decode.shard_size), AT_LEAST_ONE),
            ("calibration.starts", raw.calibration.starts, AT_LEAST_ONE),
        ];
        for (key, value, limit) in numbers {
            value.map_or(Ok(()), |value| limit.check(value)).map_err(|wrong| document.invalid(key, wrong))?;
        }
        check_distinct(document, "sweep.policies", &raw.sweep.policies)?;
        if let Some(paper) = &raw.paper {
            check_distinct(document, "paper.policies", &paper.policies)?;
        }
        if let StaticLayers::Some(layers) = &raw.sweep.static_layers {
            check_distinct(document, "sweep.static_layers", layers)?;
            if let Some(index) = layers.iter().position(|&layers| layers == 0) {
                return Err(document.invalid(&format!("sweep.static_layers[{index}]"), "must be at least 1"));
            }
        }
        if !matches!(raw.plots.quality, Metric::Bleu | Metric::Chrf | Metric::RougeL | Metric::TokenF1) {
            let message = "must be one of the columns of sweep.csv: bleu, chrf, rouge-l or token-f1";
            return Err(document.invalid("plots.quality", message));
        }

        if raw.data.test == raw.data.calibration && raw.data.test_examples.is_none() {
            let message =
                "the same as data.test, which is divided between the two: data.test_examples must say how";
            return Err(document.invalid("data.calibration", message));
        }

        if raw.data.columns.group.is_some() {
            return Err(document.invalid("data.columns.group", "is a key of [data]: data.group"));
        }
        let dataset = |paths: &DatasetPaths, limit| DatasetPlan {
            paths: paths.clone(),
            limit,
            columns: Columns { group: raw.data.group.clone(), ..raw.data.columns.clone() },
        };
        Ok(Self {
            name: name.to_owned(),
            seed: raw.seed,
            threads: raw.threads,
            model: raw.model.clone(),
            test: dataset(&raw.data.test, raw.data.test_examples),
            calibration: dataset(&raw.data.calibration, raw.data.calibration_examples),
            max_tokens: raw.decode.max_tokens,
            max_source_tokens: raw.decode.max_source_tokens,
            batch_size: raw.decode.batch_size,
            shard_size: raw.decode.shard_size,
            series: check_series(&raw, document)?,
            static_layers: raw.sweep.static_layers.clone(),
            oracle: raw.sweep.oracle,
            policies: raw.sweep.policies.clone(),
            objectives: check_objectives(&raw, document)?,
            epsilon: raw.calibration.epsilon,
            procedure: check_procedure(&raw, document)?,
            trials: check_trials(&raw, document)?,
            quality: raw.plots.quality,
            raw,
        })
    }
}

fn check_series(raw: &RawConfig, document: &Document) -> Result<Vec<Series>, Error> {
    let measures = &raw.sweep.measures;
    check_distinct(document, "sweep.measures", measures)?;
    let mut all_series = Vec::new();
    for &measure in measures {
        let own = raw.sweep.measure.get(measure).cloned().unwrap_or_default();
        let (key, values) = match &own.thresholds {
            Some(values) => (format!("sweep.measure.{measure}.thresholds"), values),
            None => ("sweep.thresholds".to_owned(), &raw.sweep.thresholds),
        };
        if values.is_empty() {
            return Err(document.invalid(&key, format!("the {measure} measure has no thresholds")));
        }
        let one = Threshold::new(1.0, own.decay)
            .map_err(|error| document.invalid(&format!("sweep.measure.{measure}.decay"), error))?;
        let policy = PolicySpec::calm(measure, one).with_exits(own.exits);
        all_series.push(check_thresholds(document, &policy.family(), &key, values)?);
    }
    for (index, RawSeries { policy, thresholds }) in raw.sweep.series.iter().enumerate() {
        let key = format!("sweep.series[{index}]");
        // Whether there is such a family is told before anything about its thresholds.
        PolicySpec::of_family(policy, 1.0)
            .map_err(|error| document.invalid(&format!("{key}.policy"), error))?;
        let (key, values) = match thresholds {
            Some(values) => (format!("{key}.thresholds"), values),
            None => ("sweep.thresholds".to_owned(), &raw.sweep.thresholds),
        };
        if values.is_empty() {
            return Err(document.invalid(&key, format!("the policy {policy} has no thresholds")));
        }
        all_series.push(check_thresholds(document, policy, &key, values)?);
    }
    let families: Vec<&str> = all_series.iter().map(Series::family).collect();
    if let Some(index) = (1..families.len()).find(|&index| families[..index].contains(&families[index])) {
        return Err(document.invalid("sweep.series", format!("{} is there twice", families[index])));
    }
    Ok(all_series)
}

fn check_thresholds(document: &Document, family: &str, key: &str, values: &[f64]) -> Result<Series, Error> {
    check_distinct(document, key, values)?;
    for (index, &value) in values.iter().enumerate() {
        PolicySpec::of_family(family, value)
            .map_err(|error| document.invalid(&format!("{key}[{index}]"), error))?;
    }
    Series::new(family, values).map_err(|error| document.invalid(key, error))
}

fn check_objectives(raw: &RawConfig, document: &Document) -> Result<Vec<Objective>, Error> {
    let calibration = &raw.calibration;
    let given = [
        (ObjectiveKind::Textual, calibration.textual_distance, &calibration.textual_deltas),
        (ObjectiveKind::Risk, calibration.risk, &calibration.risk_deltas),
        (ObjectiveKind::SignedRisk, calibration.risk, &calibration.signed_risk_deltas),
    ];
    let mut objectives = Vec::new();
    for (kind, loss, values) in given {
        let key = format!("calibration.{}_deltas", kind.name().replace('-', "_"));
        check_distinct(document, &key, values)?;
        let mut deltas = Vec::with_capacity(values.len());
        for (index, &value) in values.iter().enumerate() {
            let delta =
                Tolerance::new(value).map_err(|error| document.invalid(&format!("{key}[{index}]"), error))?;
            deltas.push(delta);
        }
        deltas.sort_by(|a, b| a.get().total_cmp(&b.get()));
        if !deltas.is_empty() {
            let loss_kind = loss_kind(kind, loss, raw.data.group.is_some());
            let p_value = calibration.p_value.unwrap_or(PValue::default_for(loss_kind));
            // Known now, and not only after everything is decoded.
            p_value.check(loss_kind).map_err(|error| {
                let message = format!("{error}, which the {} objective has", kind.name());
                document.invalid("calibration.p_value", message)
            })?;
            objectives.push(Objective { kind, loss, loss_kind, p_value, deltas });
        }
    }
    Ok(objectives)
}

/// The procedure with its parameters, none of which another procedure has.
fn check_procedure(raw: &RawConfig, document: &Document) -> Result<Procedure, Error> {
    let calibration = &raw.calibration;
    let mut procedure = calibration.procedure.clone();
    let parameters = [
        ("starts", calibration.starts.is_some(), "multi-start"),
        ("split_share", calibration.split_share.is_some(), "pareto"),
        ("split_seed", calibration.split_seed.is_some(), "pareto"),
    ];
    for (key, is_given, owner) in parameters {
        if is_given && procedure.name() != owner {
            let message = format!("belongs to the {owner} procedure, but the procedure is {procedure}");
            return Err(document.invalid(&format!("calibration.{key}"), message));
        }
    }
    match &mut procedure {
        Procedure::MultiStart { starts } => *starts = calibration.starts.unwrap_or(*starts),
        Procedure::Pareto { split } => {
            let share = calibration.split_share.unwrap_or(split.share());
            let seed = calibration.split_seed.unwrap_or(split.seed());
            *split = Split::new(share, seed)
                .map_err(|error| document.invalid("calibration.split_share", error))?;
        }
        _ => {}
    }
    Ok(procedure)
}

/// More trials take time and tell nothing more: they are all drawn from the same examples.
const MOST_TRIALS: usize = 100_000;

fn check_trials(raw: &RawConfig, document: &Document) -> Result<TrialOptions, Error> {
    let trials = &raw.calibration.trials;
    if trials.count > MOST_TRIALS {
        let message = format!(
            "{} is more than {MOST_TRIALS}: as all trials are drawn from the same examples, more of them tell no more",
            trials.count
        );
        return Err(document.invalid("calibration.trials.count", message));
    }
    Split::new(trials.calibration_share, trials.seed)
        .map_err(|error| document.invalid("calibration.trials.calibration_share", error))?;
    Ok(TrialOptions { trials: trials.count, calibration_share: trials.calibration_share, seed: trials.seed })
}

/// The same setting twice is a mistake, and would be decoded by two workers into one file.
fn check_distinct<T: PartialEq + std::fmt::Debug>(
    document: &Document,
    key: &str,
    values: &[T],
) -> Result<(), Error> {
    for (index, value) in values.iter().enumerate() {
        if values[..index].contains(value) {
            return Err(document.invalid(&format!("{key}[{index}]"), format!("{value:?} is there twice")));
        }
    }
    Ok(())
}
