//! What a run leaves beside its figures: the CSV files, `summary.json`, and the short table at the end.

use std::path::Path;

use anyhow::Context;
use calm_calibrate::Calibration;
use calm_metrics::Metric;
use serde::Serialize;

use crate::config::{Plan, RawConfig};
use crate::runner::UnitCounts;
use crate::statistics::{Results, SweepRow};
use crate::unit::{Common, write_atomically};

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
    /// Of the examples that are taken. Nothing else is random: decoding is greedy.
    examples: u64,
}

#[derive(Debug, Serialize)]
struct Versions {
    calm_experiments: &'static str,
    /// Each tch release speaks to exactly one libtorch.
    tch: &'static str,
    libtorch: &'static str,
}

#[derive(Debug, Serialize)]
struct Machine {
    os: &'static str,
    architecture: &'static str,
    processor: Option<String>,
    cores: usize,
    /// How many workers were decoding at the same time when `seconds` was measured; several numbers if the run was
    /// continued with another one.
    workers: Vec<usize>,
}

#[derive(Debug, Serialize)]
struct NamedCalibration<'a> {
    objective: &'static str,
    measure: &'static str,
    decay: Option<f64>,
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
        let calibrations = pairs.map(|(row, calibration)| NamedCalibration {
            objective: row.objective,
            measure: row.measure,
            decay: row.decay,
            calibration,
        });
        Self {
            configuration: &plan.raw,
            seeds: Seeds { examples: plan.seed },
            model: common,
            num_decoder_layers: results.num_layers,
            versions: Versions {
                calm_experiments: env!("CARGO_PKG_VERSION"),
                tch: "0.24.0",
                libtorch: "2.11.0",
            },
            machine: Machine {
                os: std::env::consts::OS,
                architecture: std::env::consts::ARCH,
                processor: processor_name(),
                cores: std::thread::available_parallelism().map_or(1, usize::from),
                workers: results.workers.clone(),
            },
            times,
            units,
            calibrations: calibrations.collect(),
        }
    }
}

/// Writes rows under a header line of their field names.
///
/// # Errors
/// The file cannot be written.
pub fn write_csv<T: Serialize>(path: &Path, rows: &[T]) -> anyhow::Result<()> {
    write_atomically(path, |file| {
        let mut writer = csv::Writer::from_writer(file);
        for row in rows {
            writer.serialize(row)?;
        }
        Ok(writer.flush()?)
    })
}

/// Writes readable JSON.
///
/// # Errors
/// The file cannot be written.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    write_atomically(path, |file| Ok(serde_json::to_writer_pretty(file, value)?))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The full model, the best static depth, the oracle, and the certified thresholds, as a table of text.
pub fn table(plan: &Plan, results: &Results) -> String {
    let Some(full) = results.sweep.iter().find(|row| row.policy == "full") else { return String::new() };
    let quality = plan.quality;
    let mut lines = vec![format!("{:<26}{:>8}{:>10}{:>10}", "", "layers", quality.name(), "speed-up")];
    let best_static = best_static(results, quality);
    let static_name =
        format!("best static depth, {}", best_static.and_then(|row| row.static_layers).unwrap_or(0));
    let oracle = results.sweep.iter().find(|row| row.policy == "oracle");
    let named =
        [("full model", Some(full)), (static_name.as_str(), best_static), ("oracle (a bound)", oracle)];
    for (name, row) in named.into_iter().filter_map(|(name, row)| Some((name, row?))) {
        let (layers, quality) = (row.average_layers, quality_of(row, quality));
        lines.push(format!("{name:<26}{layers:>8.2}{quality:>10.2}{:>10.2}", full.seconds / row.seconds));
    }

    let series: Vec<_> = plan.series.iter().map(|series| (series.measure.name(), series.decay)).collect();
    let cell = "threshold layers speed-up";
    let names = series.iter().map(|(measure, decay)| {
        let decay = decay.map_or(String::new(), |tau| format!(", decay {tau}"));
        format!("   {:<width$}", format!("{measure}{decay}"), width = cell.len())
    });
    lines.extend([String::new(), format!("{:<14}{}", "certified", names.collect::<String>())]);
    lines.push(format!("{:<14}{}", "", format!("   {cell}").repeat(series.len())));
    for objective in &plan.objectives {
        for delta in &objective.deltas {
            let mut line = format!("{:<14}", format!("{} {delta}", objective.kind.name()));
            for (measure, decay) in &series {
                let row = results.calibration.iter().find(|row| {
                    (row.objective, row.delta) == (objective.kind.name(), delta.get())
                        && (row.measure, row.decay) == (*measure, *decay)
                });
                let Some(row) = row else { continue };
                let threshold = if row.fallback { "none".to_owned() } else { row.threshold.to_string() };
                let (layers, speedup) = (row.test_average_layers, row.test_speedup);
                line += &format!("   {threshold:>9} {layers:>6.2} {speedup:>8.2}");
            }
            lines.push(line);
        }
    }
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
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
fn best_static(results: &Results, quality: Metric) -> Option<&SweepRow> {
    let depths = results.sweep.iter().filter(|row| row.static_layers.is_some_and(|k| k < results.num_layers));
    depths.reduce(|best, row| if quality_of(row, quality) > quality_of(best, quality) { row } else { best })
}

fn processor_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
