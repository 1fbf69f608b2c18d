//! What a run leaves beside its figures and pages: the CSV files and `summary.json`.

use std::path::Path;

use calm_calibrate::{Calibration, Procedure};
use calm_metrics::Metric;
use calm_names::counted;
use serde::Serialize;

use crate::config::{Plan, RawConfig};
use crate::jobs::UnitCounts;
use crate::statistics::{Results, SweepRow};
use crate::unit::Common;

/// `summary.json`.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    /// The configuration, overrides included.
    configuration: &'a RawConfig,
    /// All seeds of the run.
    seeds: Seeds,
    /// What the generations depend on.
    model: &'a Common,
    /// Decoder layers.
    num_decoder_layers: usize,
    versions: Versions,
    machine: Machine,
    times: Times,
    units: UnitCounts,
    /// One for each row of `calibration.csv`, with the p-value of every threshold.
    calibrations: Vec<NamedCalibration<'a>>,
}

#[derive(Debug, Serialize)]
struct Seeds {
    /// Seed of the examples that are taken, and of their order in calibrations. Decoding is greedy.
    examples: u64,
    /// Seed of the examples that the first trial calibrates on. Each other trial has the next number.
    trials: u64,
    /// Seed of the examples that the pareto procedure learns the order of testing on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pareto: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Versions {
    calm_experiments: &'static str,
    /// Missing where another engine has decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    libtorch: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Machine {
    os: &'static str,
    architecture: &'static str,
    processor: Option<String>,
    cores: usize,
    /// How many workers were decoding at the same time when `seconds` was measured; several numbers if the
    /// run was continued with another one.
    workers: Vec<usize>,
    /// Share of the time of decoding in which workers waited for a core that other programs had.
    waited: f64,
}

#[derive(Debug, Serialize)]
struct NamedCalibration<'a> {
    objective: &'static str,
    policy: &'a str,
    measure: Option<&'static str>,
    decay: Option<f64>,
    exits: Option<&'a str>,
    #[serde(flatten)]
    calibration: &'a Calibration,
}

/// When and how long, of the call that wrote the summary.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Times {
    /// Seconds since 1970.
    pub started_unix: u64,
    /// Until everything was decoded, loading included; short if an earlier call had decoded most of it.
    pub decoding_seconds: f64,
    /// Until the tables were made.
    pub total_seconds: f64,
}

impl<'a> Summary<'a> {
    /// Puts a summary together.
    pub fn new(
        plan: &'a Plan,
        common: &'a Common,
        results: &'a Results,
        units: UnitCounts,
        times: Times,
    ) -> Self {
        let pairs = results.calibration.iter().zip(&results.calibrations);
        let calibrations = pairs.map(|((guarantee, _), calibration)| NamedCalibration {
            objective: guarantee.objective,
            policy: &guarantee.policy,
            measure: guarantee.measure,
            decay: guarantee.decay,
            exits: guarantee.exits.as_deref(),
            calibration,
        });
        Self {
            configuration: &plan.raw,
            seeds: Seeds {
                examples: plan.seed,
                trials: plan.trials.seed,
                pareto: match plan.procedure {
                    Procedure::Pareto { split } => Some(split.seed()),
                    _ => None,
                },
            },
            model: common,
            num_decoder_layers: results.num_layers,
            versions: Versions {
                calm_experiments: env!("CARGO_PKG_VERSION"),
                // Each tch release speaks to exactly one libtorch.
                libtorch: common.device.starts_with("libtorch").then_some("2.11.0"),
            },
            machine: Machine {
                os: std::env::consts::OS,
                architecture: std::env::consts::ARCH,
                processor: processor_name(),
                cores: calm_cpu::all_cores(),
                workers: results.workers.clone(),
                waited: results.waited,
            },
            times,
            units,
            calibrations: calibrations.collect(),
        }
    }
}

impl Summary<'_> {
    /// The processor and the number of its cores.
    pub(crate) fn machine(&self) -> String {
        let Machine { processor, architecture, cores, .. } = &self.machine;
        format!("{}, {}", processor.as_deref().unwrap_or(architecture), counted(*cores, "core"))
    }

    /// The summary without the calibrations, which are most of it.
    ///
    /// # Errors
    /// It cannot be written as JSON, which does not happen.
    pub(crate) fn without_p_values(&self) -> anyhow::Result<serde_json::Value> {
        let mut summary = serde_json::to_value(self)?;
        summary.as_object_mut().map(|keys| keys.remove("calibrations"));
        Ok(summary)
    }

    /// Writes it as JSON. Where nothing was decoded and only the times of the call would change, the summary
    /// of the call that decoded stays.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let lasting = |mut summary: serde_json::Value| {
            if let Some(keys) = summary.as_object_mut() {
                keys.retain(|key, _| key != "times" && key != "units");
            }
            summary
        };
        let before = calm_files::read_json(path).ok().map(lasting);
        if self.units.decoded > 0 || before != Some(lasting(serde_json::to_value(self)?)) {
            calm_files::write_json(path, self)?;
        }
        Ok(())
    }
}

/// Writes rows under a header line of their field names.
///
/// # Errors
/// The file cannot be written.
pub fn write_csv<T: Serialize>(path: &Path, rows: &[T]) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    Ok(calm_files::write_changed(path, writer.into_inner()?)?)
}

/// The quality that figures and table show.
pub(crate) fn quality_of(row: &SweepRow, metric: Metric) -> f64 {
    match metric {
        Metric::Chrf => row.chrf,
        Metric::RougeL => row.rouge_l,
        Metric::TokenF1 => row.token_f1,
        _ => row.bleu,
    }
}

/// The static depth below all layers with the best quality, the shallowest one if there are several.
pub(crate) fn best_static(results: &Results, quality: Metric) -> Option<&SweepRow> {
    let depths = results.sweep.iter().filter(|row| {
        row.policy == "static" && row.static_layers.is_some_and(|layers| layers < results.num_layers)
    });
    depths.reduce(|best, row| if quality_of(row, quality) > quality_of(best, quality) { row } else { best })
}

fn processor_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
