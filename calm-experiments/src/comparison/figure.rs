//! Quality against speed, a panel for each task.

use calm_plots::{
    Canvas, DrawingBackend, Drawn, Figure, LegendEntry, Line, Look, Panel, Place, Point, REFERENCE,
};

use super::speed::{Case, Speeds};
use super::table::{ComparisonRow, Promise};
use super::{ComparePlan, Comparison};
use crate::plots::looks::look_of_method;

/// The height of a panel.
const PANEL_HEIGHT: f64 = 260.0;
/// The height of a line of the legend.
const LEGEND_LINE: f64 = 20.0;

/// All methods of all tasks at one batch size on one engine.
pub(super) struct ComparisonFigure {
    name: String,
    panels: Vec<TaskPanel>,
    legend: Vec<LegendEntry>,
}

struct TaskPanel {
    title: String,
    y_label: &'static str,
    x_label: String,
    full_quality: f64,
    points: Vec<(Look, Point)>,
}

impl ComparisonFigure {
    /// A figure for each case that was measured.
    pub(super) fn all(comparison: &Comparison, rows: &[ComparisonRow], speeds: &Speeds) -> Vec<Self> {
        speeds.cases().iter().map(|case| Self::new(comparison, rows, speeds, case)).collect()
    }

    fn new(comparison: &Comparison, rows: &[ComparisonRow], speeds: &Speeds, case: &Case) -> Self {
        let (engine, batch_size) = case;
        let ComparePlan { objective, delta, .. } = &comparison.compare;
        let mut methods: Vec<(String, Look)> = Vec::new();
        for row in rows.iter().filter(|row| row.promise != Promise::Bound) {
            if !methods.iter().any(|(method, _)| *method == row.method) {
                methods.push((row.method.clone(), look_of_method(methods.len())));
            }
        }
        let panels = comparison.tasks.iter().map(|(task, plan)| {
            let of_task = || rows.iter().filter(|row| row.task == *task);
            let full = of_task().find(|row| row.promise == Promise::Full);
            let full_speed = full.and_then(|full| speeds.of(task, full.policy, case));
            let point = |row: &ComparisonRow| {
                let (_, look) = methods.iter().find(|(method, _)| *method == row.method)?;
                let [quality, low, high] = row.quality;
                let x = speeds.of(task, row.policy, case)?.decoder / full_speed?.decoder;
                let open = row.promise == Promise::NoneCertified;
                Some((*look, Point { x, y: quality, spread: 0.5 * (high - low), open }))
            };
            TaskPanel {
                title: format!("{task}, {objective} delta {delta}"),
                y_label: plan.quality.label(),
                x_label: format!("speed of decoding, of the full model's; {engine}, batch {batch_size}"),
                full_quality: full.map_or(0.0, |full| full.quality[0]),
                points: of_task().filter_map(point).collect(),
            }
        });
        let legend = methods.iter().map(|(method, look)| LegendEntry::new(*look, method)).collect();
        Self {
            name: format!("compare-{}-{batch_size}", engine.replace(' ', "-")),
            panels: panels.collect(),
            legend,
        }
    }
}

impl Figure for ComparisonFigure {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> (u32, u32) {
        let panels = PANEL_HEIGHT * self.panels.len() as f64;
        let legend = LEGEND_LINE * (self.legend.len() + 3) as f64;
        (860, panels.max(legend) as u32 + 16)
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>) -> Drawn<DB> {
        for (index, task) in self.panels.iter().enumerate() {
            let ends =
                task.points.iter().flat_map(|(_, point)| [point.y - point.spread, point.y + point.spread]);
            let (low, high) = ends.fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
            let speeds = task.points.iter().map(|(_, point)| point.x);
            let (slow, fast) =
                speeds.fold((1.0, 1.0), |(slow, fast): (f64, f64), x| (slow.min(x), fast.max(x)));
            let padding = 0.05 * (high - low).max(1e-3);
            let (x, y) = (0.95 * slow..1.05 * fast, low - padding..high + padding);
            let full = vec![Point::new(x.start, task.full_quality), Point::new(x.end, task.full_quality)];
            let mut lines = vec![(REFERENCE, full)];
            lines.extend(
                task.points.iter().map(|(look, point)| (Look { line: Line::None, ..*look }, vec![*point])),
            );
            let top = 8.0 + PANEL_HEIGHT * index as f64;
            let panel = Panel {
                place: Place { left: 8.0, top, width: 590.0, height: PANEL_HEIGHT - 6.0 },
                title: &task.title,
                x_label: &task.x_label,
                y_label: task.y_label,
                x,
                y,
                x_ticks: 8,
                y_ticks: 6,
            };
            canvas.panel(&panel, &lines)?;
        }
        canvas.legend(612.0, 30.0, &self.legend)
    }
}
