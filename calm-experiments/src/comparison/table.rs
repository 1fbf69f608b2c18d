//! The rows of `compare.csv`: each method on each task.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use calm_core::PolicySpec;

use super::speed::{Speed, Speeds};
use super::{ComparePlan, Comparison};
use crate::config::{ObjectiveKind, Plan};
use crate::statistics::{Results, SweepRow};
use crate::summary::quality_of;

/// What is known about the loss of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    /// It is the full model.
    Full,
    /// Outputs are those of the full model, whatever the data.
    Exact,
    /// The expected loss is at most delta, with probability 1 - epsilon.
    Certified,
    /// No threshold could be certified, so that only the full model holds the tolerance.
    NoneCertified,
    /// Nothing is known beyond what was measured.
    Measured,
    /// It is no method, since it takes all layers to know where it could have left.
    Bound,
}

calm_names::names!(Promise, "promise", {
    Full => "full",
    Exact => "exact",
    Certified => "certified",
    NoneCertified => "none-certified",
    Measured => "measured",
    Bound => "bound",
});

/// One method on one task.
#[derive(Debug, Clone)]
pub(super) struct ComparisonRow {
    /// The task.
    pub task: String,
    /// The name of the method in tables and figures.
    pub method: String,
    /// What decoded: for a certified family the policy with its certified threshold.
    pub policy: PolicySpec,
    /// What is known about its loss.
    pub promise: Promise,
    /// Mean loss on the test examples.
    pub test_loss: f64,
    /// What it took and gave on the test examples.
    pub row: SweepRow,
    /// The task's quality, with the ends of its interval.
    pub quality: [f64; 3],
}

impl ComparisonRow {
    /// Layer-tokens that ran for each token of an output.
    pub(super) fn executed_layers(&self) -> f64 {
        self.row.executed_layers as f64 / self.row.tokens as f64
    }
}

/// The full model, each family at its certified threshold, each other policy, and the oracle.
pub(super) fn rows_of_task(
    task: &str,
    plan: &Plan,
    compare: &ComparePlan,
    results: &Results,
) -> anyhow::Result<Vec<ComparisonRow>> {
    let find = |policy: PolicySpec| {
        let found = results.sweep.iter().find(|row| row.spec == policy);
        found.with_context(|| format!("{policy} is no row of the sweep"))
    };
    let row = |method: &str, policy: PolicySpec, promise: Promise, test_loss: Option<f64>| {
        let row = find(policy)?.clone();
        let loss = match compare.objective {
            ObjectiveKind::Textual => row.textual_distance,
            _ => test_loss.unwrap_or(row.risk_difference),
        };
        let quality = [quality_of(&row, plan.quality), row.quality_low, row.quality_high];
        let (task, method) = (task.to_owned(), method.to_owned());
        Ok::<_, anyhow::Error>(ComparisonRow { task, method, policy, promise, test_loss: loss, row, quality })
    };
    let mut rows = vec![row("full model", PolicySpec::full(), Promise::Full, Some(0.0))?];
    for series in &plan.series {
        let certified = results.calibration.iter().find(|(guarantee, _)| {
            guarantee.policy == series.family()
                && guarantee.objective == compare.objective.name()
                && guarantee.delta == compare.delta.get()
        });
        let (_, certified) = certified.with_context(|| format!("{} was not calibrated", series.family()))?;
        let (policy, promise) = match certified.fallback {
            true => (PolicySpec::full(), Promise::NoneCertified),
            false => (PolicySpec::of_family(series.family(), certified.threshold)?, Promise::Certified),
        };
        rows.push(row(&series.label(), policy, promise, Some(certified.test_loss))?);
    }
    for &policy in &plan.policies {
        let is_exact = policy.kind().name == "self-speculative";
        let promise = if is_exact { Promise::Exact } else { Promise::Measured };
        rows.push(row(&policy.to_string(), policy, promise, None)?);
    }
    if plan.oracle {
        rows.push(row("oracle", PolicySpec::oracle(), Promise::Bound, None)?);
    }
    Ok(rows)
}

/// Writes the rows, with a column for each speed that was measured.
pub(super) fn write_rows(path: &Path, rows: &[ComparisonRow], speeds: &Speeds) -> anyhow::Result<()> {
    let columns = [
        "task",
        "method",
        "policy",
        "promise",
        "test_loss",
        "quality",
        "quality_low",
        "quality_high",
        "average_layers",
        "executed_layers",
        "flops_per_token",
        "bytes_per_token",
    ];
    let cases = speeds.cases();
    let mut writer = csv::Writer::from_writer(Vec::new());
    let names = cases.iter().flat_map(|(engine, rows)| {
        ["tokens_per_second", "decoder_tokens_per_second"].map(|name| format!("{name} {engine} batch {rows}"))
    });
    writer.write_record(columns.map(str::to_owned).into_iter().chain(names))?;
    for row in rows {
        let mut cells =
            vec![row.task.clone(), row.method.clone(), row.policy.to_string(), row.promise.to_string()];
        let [quality, low, high] = row.quality;
        let numbers = [
            row.test_loss,
            quality,
            low,
            high,
            row.row.average_layers,
            row.executed_layers(),
            row.row.flops_per_token,
            row.row.bytes_per_token,
        ];
        cells.extend(numbers.map(|number| number.to_string()));
        cells.extend(cases.iter().flat_map(|case| {
            let speed = speeds.of(&row.task, row.policy, case);
            let cell = |of: fn(Speed) -> f64| speed.map_or(String::new(), |speed| of(speed).to_string());
            [cell(|speed| speed.whole), cell(|speed| speed.decoder)]
        }));
        writer.write_record(cells)?;
    }
    Ok(calm_files::write_changed(path, writer.into_inner()?)?)
}

/// The table as text: shares and factors are of the full model's. Of a speed there are the tokens per
/// second of whole calls, their factor, and that of decoding alone.
pub(super) fn text(
    comparison: &Comparison,
    rows: &[ComparisonRow],
    speeds: &Speeds,
) -> anyhow::Result<String> {
    let cases = speeds.cases();
    let ComparePlan { objective, delta, .. } = &comparison.compare;
    let mut out = String::new();
    for (task, plan) in &comparison.tasks {
        let of_task = || rows.iter().filter(|row| row.task == *task);
        let full = of_task().find(|row| row.promise == Promise::Full).context("no full model")?;
        writeln!(out, "{task}: {objective} delta {delta}, epsilon {}", plan.epsilon)?;
        write!(
            out,
            "{:<30} {:<14} {:>7} {:>9} {:>16} {:>6} {:>6} {:>6} {:>6}",
            "method",
            "promise",
            "loss",
            plan.quality.name(),
            "95 % interval",
            "layers",
            "run",
            "FLOPs",
            "bytes"
        )?;
        for (engine, rows) in &cases {
            write!(out, " {:>20}", format!("{engine} x{rows}"))?;
        }
        writeln!(out)?;
        for row in of_task() {
            let [quality, low, high] = row.quality;
            let share = |of: fn(&SweepRow) -> f64| match of(&full.row) {
                // The model does not say.
                0.0 => String::new(),
                full => format!("{:.0}%", 100.0 * of(&row.row) / full),
            };
            // The threshold is in the policy.
            let method =
                if row.promise == Promise::Certified { row.policy.to_string() } else { row.method.clone() };
            write!(
                out,
                "{method:<30} {:<14} {:>7.4} {quality:>9.2} {:>16} {:>6.2} {:>6.2} {:>6} {:>6}",
                row.promise.name(),
                row.test_loss,
                format!("{low:.1} - {high:.1}"),
                row.row.average_layers,
                row.executed_layers(),
                share(|row| row.flops_per_token),
                share(|row| row.bytes_per_token),
            )?;
            for case in &cases {
                let speed = speeds.of(task, row.policy, case);
                let full = speeds.of(task, full.policy, case);
                let cell = match (speed, full) {
                    (Some(speed), Some(full)) => {
                        let (whole, decoder) = (speed.whole / full.whole, speed.decoder / full.decoder);
                        format!("{:.0} {whole:.2}x {decoder:.2}x", speed.whole)
                    }
                    _ => String::new(),
                };
                write!(out, " {cell:>20}")?;
            }
            writeln!(out)?;
        }
        writeln!(out)?;
    }
    Ok(out.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"))
}
