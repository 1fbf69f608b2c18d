//! Quality against average layers (the paper's figure 3).

use calm_core::PolicySpec;
use calm_plots::{Canvas, DrawingBackend, Drawn, Figure, LegendEntry, Look, Panel, Place, Point, REFERENCE};

use super::looks::{ORACLE, STATIC, look_of, look_of_point};
use crate::config::Plan;
use crate::statistics::{Results, SweepRow};
use crate::summary::quality_of;

pub(super) struct QualityVsLayers {
    y_label: &'static str,
    num_layers: f64,
    full_quality: f64,
    static_depths: Vec<Point>,
    oracle: Vec<Point>,
    /// Policies that the configuration lists by their ids, each with its name.
    others: Vec<(Look, String, Vec<Point>)>,
    series: Vec<(Look, String, Vec<Point>)>,
}

impl QualityVsLayers {
    pub(super) fn new(plan: &Plan, results: &Results) -> Self {
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
        Self {
            y_label: plan.quality.label(),
            num_layers: results.num_layers as f64,
            full_quality: points(&|row| row.policy == "full").first().map_or(0.0, |full| full.y),
            static_depths,
            oracle: points(&|row| row.policy == "oracle"),
            others: plan.policies.iter().enumerate().map(other).collect(),
            series: series.collect(),
        }
    }
}

impl Figure for QualityVsLayers {
    fn name(&self) -> &str {
        "quality_vs_layers"
    }

    fn size(&self) -> (u32, u32) {
        (720, 420)
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>) -> Drawn<DB> {
        let x = 0.7..self.num_layers + 0.3;
        let full = vec![Point::new(x.start, self.full_quality), Point::new(x.end, self.full_quality)];
        let mut lines = vec![(REFERENCE, full), (STATIC, self.static_depths.clone())];
        let named = || self.series.iter().chain(&self.others);
        lines.extend(named().map(|(look, _, points)| (*look, points.clone())));
        lines.push((ORACLE, self.oracle.clone()));

        let heights = lines.iter().flat_map(|(_, points)| points).map(|point| point.y);
        let (low, high) = heights.fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
        let padding = (0.05 * (high - low)).max(0.02 * high);
        let panel = Panel {
            place: Place { left: 8.0, top: 8.0, width: 545.0, height: 404.0 },
            title: "",
            x_label: "average decoder layers per token",
            y_label: self.y_label,
            x,
            y: (low - padding).max(0.0)..high + padding,
            x_ticks: self.num_layers as usize + 1,
            y_ticks: 8,
        };
        canvas.panel(&panel, &lines)?;

        let mut entries: Vec<LegendEntry> =
            named().map(|(look, label, _)| LegendEntry::new(*look, label)).collect();
        entries.push(LegendEntry::new(STATIC, "static"));
        if !self.oracle.is_empty() {
            entries.push(LegendEntry::new(ORACLE, "oracle"));
        }
        entries.push(LegendEntry::new(REFERENCE, "full model"));
        canvas.legend(568.0, 40.0, &entries)
    }
}
