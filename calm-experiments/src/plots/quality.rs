//! Quality against average layers (the paper's figure 3).

use calm_core::PolicySpec;
use calm_plots::{Canvas, Chart, DrawingBackend, Drawn, Figure, LegendEntry, Look, Place, Point, REFERENCE};

use super::looks::{ORACLE, STATIC, look_of, look_of_point};
use crate::config::Plan;
use crate::statistics::{Results, SweepRow};
use crate::summary::quality_of;

/// Draws the chart: a line for each series, the static depths, the oracle and what the configuration lists.
pub(crate) fn quality_vs_layers(plan: &Plan, results: &Results) -> Chart {
    let point = |row: &SweepRow| Point::new(row.average_layers, quality_of(row, plan.quality));
    let points = |keep: &dyn Fn(&SweepRow) -> bool| -> Vec<Point> {
        results.sweep.iter().filter(|row| keep(row)).map(point).collect()
    };
    let mut static_depths = points(&|row| row.policy == "static");
    static_depths.sort_by(|a, b| a.x.total_cmp(&b.x));
    let series = plan.series.iter().map(|series| {
        let is_of = |row: &SweepRow| series.policies().any(|policy| policy == row.spec);
        (look_of(series.family()), series.label(), points(&is_of))
    });
    let other = |(index, policy): (usize, &PolicySpec)| {
        (look_of_point(index), policy.to_string(), points(&|row| row.spec == *policy))
    };
    let named: Vec<(Look, String, Vec<Point>)> =
        series.chain(plan.policies.iter().enumerate().map(other)).collect();
    let oracle = points(&|row| row.policy == "oracle");
    let full_quality = points(&|row| row.policy == "full").first().map_or(0.0, |full| full.y);

    let x = 0.7..results.num_layers as f64 + 0.3;
    let full = vec![Point::new(x.start, full_quality), Point::new(x.end, full_quality)];
    let mut legend: Vec<LegendEntry> =
        named.iter().map(|(look, label, _)| LegendEntry::new(*look, label)).collect();
    legend.push(LegendEntry::new(STATIC, "static"));
    if !oracle.is_empty() {
        legend.push(LegendEntry::new(ORACLE, "oracle"));
    }
    legend.push(LegendEntry::new(REFERENCE, "full model"));
    let mut lines = vec![(REFERENCE, full), (STATIC, static_depths)];
    lines.extend(named.into_iter().map(|(look, _, points)| (look, points)));
    lines.push((ORACLE, oracle));

    let heights = lines.iter().flat_map(|(_, points)| points).map(|point| point.y);
    let (low, high) = heights.fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
    let padding = (0.05 * (high - low)).max(0.02 * high);
    Chart {
        title: String::new(),
        x_label: "average decoder layers per token".to_owned(),
        y_label: plan.quality.label().to_owned(),
        x,
        y: (low - padding).max(0.0)..high + padding,
        x_ticks: results.num_layers + 1,
        y_ticks: 8,
        lines,
        legend,
    }
}

/// The chart with its legend to the right.
pub(super) struct QualityVsLayers(pub(super) Chart);

impl Figure for QualityVsLayers {
    fn name(&self) -> &str {
        "quality_vs_layers"
    }

    fn size(&self) -> (u32, u32) {
        (720, 420)
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>) -> Drawn<DB> {
        let place = Place { left: 8.0, top: 8.0, width: 545.0, height: 404.0 };
        canvas.panel(&self.0.panel(place), &self.0.lines)?;
        canvas.legend(568.0, 40.0, &self.0.legend)
    }
}
