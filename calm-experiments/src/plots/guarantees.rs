//! Loss and layers against the tolerance, at the thresholds certified for it: once each on the test split
//! (the paper's figures B.1 and B.2), and over trials on random parts of the calibration split (its bands).

use calm_plots::{
    Canvas, DrawingBackend, Drawn, Figure, LegendEntry, Line, Look, Marker, Panel, Place, Point, REFERENCE,
};

use super::looks::look_of;
use crate::config::label;
use crate::statistics::{Guarantee, Results};

const PANEL_HEIGHT: f64 = 260.0;

/// Two panels for each objective, one below the other, with a line for each measure.
pub(super) struct GuaranteesFigure {
    name: &'static str,
    loss_label: &'static str,
    layers_label: &'static str,
    objectives: Vec<ObjectivePanels>,
    legend: Vec<LegendEntry>,
    num_layers: f64,
}

/// One row of the figure.
struct ObjectivePanels {
    title: &'static str,
    largest_delta: f64,
    loss: Vec<(Look, Vec<Point>)>,
    layers: Vec<(Look, Vec<Point>)>,
}

/// What is drawn of a row of `calibration.csv` or `trials.csv`.
struct Drawable<'a> {
    guarantee: &'a Guarantee,
    loss: Point,
    layers: Point,
}

impl<'a> Drawable<'a> {
    fn family(&self) -> &'a str {
        &self.guarantee.policy
    }
}

impl GuaranteesFigure {
    /// The rows of `calibration.csv`; `None` if nothing was calibrated.
    pub(super) fn certified(results: &Results) -> Option<Self> {
        let rows = results.calibration.iter().map(|(guarantee, row)| {
            let point = |y| Point { x: guarantee.delta, y, spread: 0.0, open: row.fallback };
            Drawable { guarantee, loss: point(row.test_loss), layers: point(row.test_average_layers) }
        });
        Self::new(
            "calibration",
            "mean loss on test",
            "average layers on test",
            rows.collect(),
            results.num_layers,
        )
    }

    /// The rows of `trials.csv`; `None` if there were no trials.
    pub(super) fn trials(results: &Results) -> Option<Self> {
        let rows = results.trials.iter().map(|(guarantee, row)| {
            let point = |y, spread| Point { x: guarantee.delta, y, spread, open: row.certified == 0 };
            Drawable {
                guarantee,
                loss: point(row.test_loss_mean, row.test_loss_std),
                layers: point(row.average_layers_mean, row.average_layers_std),
            }
        });
        let (loss_label, layers_label) = ("loss, mean ± std over trials", "layers, mean ± std over trials");
        Self::new("trials", loss_label, layers_label, rows.collect(), results.num_layers)
    }

    fn new(
        name: &'static str,
        loss_label: &'static str,
        layers_label: &'static str,
        rows: Vec<Drawable<'_>>,
        num_layers: usize,
    ) -> Option<Self> {
        let families = distinct(rows.iter().map(Drawable::family));
        let panels = |objective| {
            let rows = || rows.iter().filter(move |row| row.guarantee.objective == objective);
            let lines = |point: fn(&Drawable<'_>) -> Point| -> Vec<(Look, Vec<Point>)> {
                let points = |family| rows().filter(|row| row.family() == family).map(point).collect();
                families.iter().map(|&family| (look_of(family), points(family))).collect()
            };
            ObjectivePanels {
                title: match objective {
                    "risk" => "risk consistency",
                    "signed-risk" => "risk consistency, signed",
                    _ => "textual consistency",
                },
                largest_delta: rows().map(|row| row.loss.x).fold(0.0, f64::max),
                loss: lines(|row| row.loss),
                layers: lines(|row| row.layers),
            }
        };
        let objectives: Vec<ObjectivePanels> =
            distinct(rows.iter().map(|row| row.guarantee.objective)).into_iter().map(panels).collect();
        let entry = |&family: &&str| LegendEntry::new(look_of(family), label(family));
        let mut legend: Vec<LegendEntry> = families.iter().map(entry).collect();
        legend.push(LegendEntry::new(REFERENCE, "loss = δ"));
        let open = Look { marker: Marker::Circle, line: Line::None, ..REFERENCE };
        legend.push(LegendEntry { open: true, ..LegendEntry::new(open, "none certified") });
        let num_layers = num_layers as f64;
        let figure = Self { name, loss_label, layers_label, objectives, legend, num_layers };
        (!figure.objectives.is_empty()).then_some(figure)
    }
}

impl Figure for GuaranteesFigure {
    fn name(&self) -> &str {
        self.name
    }

    fn size(&self) -> (u32, u32) {
        (860, (PANEL_HEIGHT * self.objectives.len() as f64) as u32 + 16)
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>) -> Drawn<DB> {
        for (index, objective) in self.objectives.iter().enumerate() {
            let top = 8.0 + PANEL_HEIGHT * index as f64;
            let end = 1.05 * objective.largest_delta;
            let points = || objective.loss.iter().flat_map(|(_, points)| points);
            let highest = points().map(|point| point.y + point.spread).fold(end, f64::max);
            let lowest = points().map(|point| point.y - point.spread).fold(0.0, f64::min);
            let mut loss = vec![(REFERENCE, vec![Point::new(0.0, 0.0), Point::new(end, end)])];
            loss.extend(objective.loss.iter().cloned());
            let panel = |left: f64, y_label, y| Panel {
                place: Place { left, top, width: 345.0, height: PANEL_HEIGHT - 6.0 },
                title: objective.title,
                x_label: "tolerance δ",
                y_label,
                x: 0.0..end,
                y,
                x_ticks: 6,
                y_ticks: 6,
            };
            canvas.panel(&panel(8.0, self.loss_label, 1.1 * lowest..highest), &loss)?;
            let layers = panel(358.0, self.layers_label, 0.0..self.num_layers + 0.4);
            canvas.panel(&layers, &objective.layers)?;
        }
        canvas.legend(716.0, 50.0, &self.legend)
    }
}

/// The different values, in order of their first appearance.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}
