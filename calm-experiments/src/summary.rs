//! What a run leaves beside its figures: the CSV files, `summary.json`, and the short table at the end.

use std::path::Path;

use anyhow::Context;
use calm_calibrate::Calibration;
use calm_metrics::Metric;
use serde::Serialize;

use crate::config::{Plan, RawConfig};
use crate::runner::UnitCounts;
use crate::statistics::{CalibrationRow, Results, SweepRow};
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
    calibrations: &'a [Calibration],
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

/// When and how long, of the call that wrote the summary.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Times {
    /// Seconds since 1970.
    pub started_unix: u64,
    /// Until everything was decoded, loading included; short if an earlier call had decoded most of it.
    pub decoding_seconds: f64,
    /// Until the tables and figures were written.
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
            calibrations: &results.calibrations,
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

/// The full model, the best static depth and the certified points, as a table of text.
pub fn table(plan: &Plan, results: &Results) -> String {
    let quality = plan.quality;
    let mut lines = vec![row(["setting", "threshold", "layers", quality.name(), "loss", "speed-up"])];
    let Some(full) = results.sweep.iter().find(|row| row.policy == "full") else { return String::new() };
    let of_sweep = |name: &str, sweep: &SweepRow| {
        let cells = [
            name.to_owned(),
            sweep.threshold.map_or(String::new(), |threshold| threshold.to_string()),
            format!("{:.2}", sweep.average_layers),
            format!("{:.2}", quality_of(sweep, quality)),
            String::new(),
            format!("{:.2}", full.seconds / sweep.seconds),
        ];
        row(cells.each_ref().map(String::as_str))
    };
    lines.push(of_sweep("full model", full));
    if let Some(best) = best_static(results, quality) {
        lines.push(of_sweep(
            &format!("best static ({} layers)", best.static_layers.unwrap_or_default()),
            best,
        ));
    }
    if let Some(oracle) = results.sweep.iter().find(|row| row.policy == "oracle") {
        lines.push(of_sweep("oracle (a bound)", oracle));
    }
    for certified in &results.calibration {
        let CalibrationRow { objective, delta, measure, .. } = certified;
        let at = sweep_row_of(results, certified).unwrap_or(full);
        let cells = [
            format!("{objective} {delta}, {measure}"),
            if certified.fallback { "none".to_owned() } else { certified.threshold.to_string() },
            format!("{:.2}", certified.test_average_layers),
            format!("{:.2}", quality_of(at, quality)),
            format!("{:.4}", certified.test_loss),
            format!("{:.2}", certified.test_speedup),
        ];
        lines.push(row(cells.each_ref().map(String::as_str)));
    }
    lines.join("\n")
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

/// The row of the sweep that a certified threshold is.
fn sweep_row_of<'a>(results: &'a Results, certified: &CalibrationRow) -> Option<&'a SweepRow> {
    results.sweep.iter().find(|row| {
        row.measure == Some(certified.measure)
            && row.decay == certified.decay
            && row.threshold == Some(certified.threshold)
    })
}

fn row(cells: [&str; 6]) -> String {
    let [setting, threshold, layers, quality, loss, speed] = cells;
    let line = format!("{setting:<28} {threshold:>9} {layers:>7} {quality:>8} {loss:>8} {speed:>8}");
    line.trim_end().to_owned()
}

fn processor_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
