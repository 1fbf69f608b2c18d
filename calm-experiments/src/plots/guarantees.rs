//! Loss and layers against the tolerance, at the thresholds certified for it: once each on the test split
//! (the paper's figures B.1 and B.2), and over trials on random parts of the calibration split (its bands).

use calm_plots::{
    Canvas, Chart, DrawingBackend, Drawn, Figure, LegendEntry, Line, Look, Marker, Place, Point, REFERENCE,
};

use super::looks::look_of;
use crate::config::label;
use crate::statistics::{Guarantee, Results};
use crate::trials::TrialsRow;

const PANEL_HEIGHT: f64 = 260.0;

/// Two charts for each objective, one row of the figure each, with a line for each measure.
pub(crate) struct GuaranteesFigure {
    name: &'static str,
    /// Loss and layers of each objective.
    pub(crate) objectives: Vec<[Chart; 2]>,
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
    pub(crate) fn certified(results: &Results) -> Option<Self> {
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
    pub(crate) fn trials(trials: &[(Guarantee, TrialsRow)], num_layers: usize) -> Option<Self> {
        let rows = trials.iter().map(|(guarantee, row)| {
            let point = |y, spread| Point { x: guarantee.delta, y, spread, open: row.certified == 0 };
            Drawable {
                guarantee,
                loss: point(row.test_loss_mean, row.test_loss_std),
                layers: point(row.average_layers_mean, row.average_layers_std),
            }
        });
        let (loss_label, layers_label) = ("loss, mean ± std over trials", "layers, mean ± std over trials");
        Self::new("trials", loss_label, layers_label, rows.collect(), num_layers)
    }

    fn new(
        name: &'static str,
        loss_label: &'static str,
        layers_label: &'static str,
        rows: Vec<Drawable<'_>>,
        num_layers: usize,
    ) -> Option<Self> {
        let families = distinct(rows.iter().map(Drawable::family));
        let entry = |&family: &&str| LegendEntry::new(look_of(family), label(family));
        let mut legend: Vec<LegendEntry> = families.iter().map(entry).collect();
        legend.push(LegendEntry::new(REFERENCE, "loss = δ"));
        let open = Look { marker: Marker::Circle, line: Line::None, ..REFERENCE };
        legend.push(LegendEntry { open: true, ..LegendEntry::new(open, "none certified") });
        let charts = |objective| {
            let rows = || rows.iter().filter(move |row| row.guarantee.objective == objective);
            let lines = |point: fn(&Drawable<'_>) -> Point| -> Vec<(Look, Vec<Point>)> {
                let points = |family| rows().filter(|row| row.family() == family).map(point).collect();
                families.iter().map(|&family| (look_of(family), points(family))).collect()
            };
            let end = 1.05 * rows().map(|row| row.loss.x).fold(0.0, f64::max);
            let losses = || rows().map(|row| row.loss);
            let highest = losses().map(|point| point.y + point.spread).fold(end, f64::max);
            let lowest = losses().map(|point| point.y - point.spread).fold(0.0, f64::min);
            let mut loss = vec![(REFERENCE, vec![Point::new(0.0, 0.0), Point::new(end, end)])];
            loss.extend(lines(|row| row.loss));
            let chart = |y_label: &str, y, lines| Chart {
                title: objective_title(objective).to_owned(),
                x_label: "tolerance δ".to_owned(),
                y_label: y_label.to_owned(),
                x: 0.0..end,
                y,
                x_ticks: 6,
                y_ticks: 6,
                lines,
                legend: legend.clone(),
            };
            let layers = lines(|row| row.layers);
            [
                chart(loss_label, 1.1 * lowest..highest, loss),
                chart(layers_label, 0.0..num_layers as f64 + 0.4, layers),
            ]
        };
        let objectives = distinct(rows.iter().map(|row| row.guarantee.objective)).into_iter().map(charts);
        let figure = Self { name, objectives: objectives.collect() };
        (!figure.objectives.is_empty()).then_some(figure)
    }
}

/// The name of an objective in titles.
pub(crate) fn objective_title(objective: &str) -> &'static str {
    match objective {
        "risk" => "risk consistency",
        "signed-risk" => "risk consistency, signed",
        _ => "textual consistency",
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
        for (index, charts) in self.objectives.iter().enumerate() {
            let top = 8.0 + PANEL_HEIGHT * index as f64;
            for (chart, left) in charts.iter().zip([8.0, 358.0]) {
                let place = Place { left, top, width: 345.0, height: PANEL_HEIGHT - 6.0 };
                canvas.panel(&chart.panel(place), &chart.lines)?;
            }
        }
        let legend = self.objectives.first().map_or(&[][..], |[chart, _]| &chart.legend);
        canvas.legend(716.0, 50.0, legend)
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
