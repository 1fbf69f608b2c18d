//! Loss and layers on the test split at the thresholds certified for each tolerance (the paper's figures B.1 and B.2).

use plotters::prelude::DrawingBackend;

use super::style::{Canvas, Line, Look, Marker, Panel, Point, REFERENCE, look_of, measure_label};
use super::{Area, Drawn, Figure};
use crate::statistics::{CalibrationRow, Results};

const PANEL_HEIGHT: f64 = 260.0;

pub(super) struct CalibrationFigure {
    objectives: Vec<ObjectivePanels>,
    legend: Vec<(Look, String)>,
    num_layers: f64,
}

/// One row of the figure.
struct ObjectivePanels {
    title: &'static str,
    largest_delta: f64,
    loss: Vec<(Look, Vec<Point>)>,
    layers: Vec<(Look, Vec<Point>)>,
}

impl CalibrationFigure {
    /// `None` if nothing was calibrated.
    pub(super) fn new(results: &Results) -> Option<Self> {
        let series = distinct(results.calibration.iter().map(|row| (row.measure, row.decay)));
        let objectives = distinct(results.calibration.iter().map(|row| row.objective));
        let panels = objectives.into_iter().map(|objective| {
            let rows = || results.calibration.iter().filter(move |row| row.objective == objective);
            let lines = |y: fn(&CalibrationRow) -> f64| -> Vec<(Look, Vec<Point>)> {
                let line = |&(measure, decay): &(&str, Option<f64>)| {
                    let rows = rows().filter(|row| row.measure == measure && row.decay == decay);
                    let points = rows.map(|row| Point { x: row.delta, y: y(row), open: row.fallback });
                    (look_of(measure), points.collect())
                };
                series.iter().map(line).collect()
            };
            ObjectivePanels {
                title: if objective == "risk" { "risk consistency" } else { "textual consistency" },
                largest_delta: rows().map(|row| row.delta).fold(0.0, f64::max),
                loss: lines(|row| row.test_loss),
                layers: lines(|row| row.test_average_layers),
            }
        });
        let panels: Vec<ObjectivePanels> = panels.collect();
        let legend = series
            .iter()
            .map(|&(measure, decay)| (look_of(measure), measure_label(measure, decay)))
            .collect();
        (!panels.is_empty()).then_some(Self {
            objectives: panels,
            legend,
            num_layers: results.num_layers as f64,
        })
    }
}

impl Figure for CalibrationFigure {
    fn name(&self) -> &'static str {
        "calibration"
    }

    fn size(&self) -> (u32, u32) {
        (860, (PANEL_HEIGHT * self.objectives.len() as f64) as u32 + 16)
    }

    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>, scale: f64) -> Drawn<DB> {
        let canvas = Canvas { area, scale };
        for (index, objective) in self.objectives.iter().enumerate() {
            let top = 8.0 + PANEL_HEIGHT * index as f64;
            let end = 1.05 * objective.largest_delta;
            let highest = objective.loss.iter().flat_map(|(_, points)| points).map(|point| point.y);
            let mut loss = vec![(REFERENCE, vec![Point::new(0.0, 0.0), Point::new(end, end)])];
            loss.extend(objective.loss.iter().cloned());
            canvas.panel(
                &Panel {
                    place: (8.0, top, 345.0, PANEL_HEIGHT - 6.0),
                    title: objective.title,
                    x_label: "tolerance δ",
                    y_label: "mean loss on test",
                    x: 0.0..end,
                    y: 0.0..highest.fold(end, f64::max),
                    x_ticks: 6,
                    y_ticks: 6,
                },
                &loss,
            )?;
            canvas.panel(
                &Panel {
                    place: (358.0, top, 345.0, PANEL_HEIGHT - 6.0),
                    title: objective.title,
                    x_label: "tolerance δ",
                    y_label: "average layers on test",
                    x: 0.0..end,
                    y: 0.0..self.num_layers + 0.4,
                    x_ticks: 6,
                    y_ticks: 6,
                },
                &objective.layers,
            )?;
        }
        let mut entries: Vec<(Look, bool, String)> =
            self.legend.iter().map(|(look, label)| (*look, false, label.clone())).collect();
        entries.push((REFERENCE, false, "loss = δ".to_owned()));
        let open = Look { colour: REFERENCE.colour, marker: Marker::Circle, line: Line::None };
        entries.push((open, true, "none certified".to_owned()));
        canvas.legend((716.0, 50.0), &entries)
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
