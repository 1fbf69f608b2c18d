//! How far the mapped probabilities are from what happens, on examples that they were not fitted to.

use std::path::{Path, PathBuf};

use calm_core::Exits;
use calm_plots::{
    Canvas, DrawingBackend, Drawn, Figure, LegendEntry, Line, Look, Marker, Panel, Place, Point, REFERENCE,
    palette, save,
};
use serde::Serialize;

use crate::agreement::layer_of;
use crate::observe::Reading;

/// Number of bins of equal width.
const BINS: usize = 10;
/// Bins of fewer tokens are drawn open.
const FEW_TOKENS: usize = 30;

/// Predicted against observed, for one map.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reliability {
    /// The measure that is mapped.
    pub measure: &'static str,
    /// The layer.
    pub layer: usize,
    /// The tests that the confidence depends on.
    pub tests: Exits,
    /// Tokens that were held out.
    pub tokens: usize,
    /// Share of them where the layer agrees with the last one.
    pub agreement: f64,
    /// Expected calibration error: the mean over these tokens of how far their bin's mean prediction is from
    /// the share that agrees, from 0 to 1.
    pub expected_calibration_error: f64,
    /// The bins that have tokens, by ascending prediction.
    pub bins: Vec<Bin>,
}

/// The tokens with predictions in one tenth of the range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bin {
    /// Mean prediction.
    pub predicted: f64,
    /// Share that agrees.
    pub observed: f64,
    /// Number of tokens.
    pub tokens: usize,
}

impl Reliability {
    /// Compares a map from confidences to probabilities with readings.
    pub fn new(measure: &'static str, tests: Exits, map: impl Fn(f32) -> f32, readings: &[Reading]) -> Self {
        let mut sums = [(0.0_f64, 0_usize, 0_usize); BINS];
        for reading in readings {
            let predicted = map(reading.confidence);
            if predicted.is_nan() {
                continue;
            }
            let (sum, agreeing, tokens) = &mut sums[((predicted * BINS as f32) as usize).min(BINS - 1)];
            *sum += f64::from(predicted);
            *agreeing += usize::from(reading.agrees);
            *tokens += 1;
        }
        let bins: Vec<Bin> = sums
            .into_iter()
            .filter(|(_, _, tokens)| *tokens > 0)
            .map(|(sum, agreeing, tokens)| {
                let count = tokens as f64;
                Bin { predicted: sum / count, observed: agreeing as f64 / count, tokens }
            })
            .collect();
        let tokens: usize = bins.iter().map(|bin| bin.tokens).sum();
        let mean = |of: &dyn Fn(&Bin) -> f64| {
            bins.iter().map(|bin| bin.tokens as f64 * of(bin)).sum::<f64>() / tokens.max(1) as f64
        };
        Self {
            measure,
            layer: layer_of(tests),
            tests,
            tokens,
            agreement: mean(&|bin| bin.observed),
            expected_calibration_error: mean(&|bin| (bin.predicted - bin.observed).abs()),
            bins,
        }
    }
}

/// Draws `reliability.svg` and `reliability.png` into `folder`: a panel for each layer with a line for each
/// measure, where it depends on no test before or on all of them.
///
/// # Errors
/// A file cannot be written.
pub fn draw(reliability: &[Reliability], folder: &Path) -> Result<[PathBuf; 2], calm_plots::Error> {
    save(&ReliabilityFigure::new(reliability), folder)
}

const PANEL: f64 = 220.0;
const COLUMNS: usize = 4;

struct ReliabilityFigure {
    /// By layer, from 1: a title and a line for each measure.
    panels: Vec<(String, Vec<(Look, Vec<Point>)>)>,
    legend: Vec<LegendEntry>,
}

impl ReliabilityFigure {
    fn new(reliability: &[Reliability]) -> Self {
        let shown = |row: &&Reliability| row.tests.len() == 1 || row.tests.contains(1);
        let mut measures: Vec<&str> = reliability.iter().map(|row| row.measure).collect();
        measures.dedup();
        measures.sort_unstable();
        measures.dedup();
        let look = |index: usize| Look {
            colour: palette::categorical(index),
            marker: [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond][index % 4],
            line: Line::Solid,
        };
        let layers = reliability.iter().map(|row| row.layer).max().unwrap_or(0);
        let panel = |layer: usize| {
            let rows = || reliability.iter().filter(shown).filter(move |row| row.layer == layer);
            let tokens = rows().map(|row| row.tokens).max().unwrap_or(0);
            let agreement = rows().map(|row| row.agreement).fold(0.0, f64::max);
            let lines = measures.iter().enumerate().filter_map(|(index, measure)| {
                let row = rows().find(|row| row.measure == *measure)?;
                let point = |bin: &Bin| Point {
                    open: bin.tokens < FEW_TOKENS,
                    ..Point::new(bin.predicted, bin.observed)
                };
                Some((look(index), row.bins.iter().map(point).collect()))
            });
            let title = format!("layer {layer}: {:.0} % of {tokens}", 100.0 * agreement);
            (title, lines.collect())
        };
        let mut legend: Vec<LegendEntry> = measures
            .iter()
            .enumerate()
            .map(|(index, measure)| LegendEntry::new(look(index), *measure))
            .collect();
        let open = Look { marker: Marker::Circle, line: Line::None, ..REFERENCE };
        let few = format!("fewer than {FEW_TOKENS} tokens");
        legend.push(LegendEntry { open: true, ..LegendEntry::new(open, few) });
        legend.push(LegendEntry::new(REFERENCE, "predicted = observed"));
        Self { panels: (1..=layers).map(panel).collect(), legend }
    }
}

impl Figure for ReliabilityFigure {
    fn name(&self) -> &str {
        "reliability"
    }

    fn size(&self) -> (u32, u32) {
        let rows = (self.panels.len() + 1).div_ceil(COLUMNS);
        ((PANEL * COLUMNS as f64) as u32 + 16, (PANEL * rows as f64) as u32 + 16)
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>) -> Drawn<DB> {
        let place = |index: usize| {
            let (row, column) = (index / COLUMNS, index % COLUMNS);
            (8.0 + PANEL * column as f64, 8.0 + PANEL * row as f64)
        };
        for (index, (title, lines)) in self.panels.iter().enumerate() {
            let (left, top) = place(index);
            let mut drawn = vec![(REFERENCE, vec![Point::new(0.0, 0.0), Point::new(1.0, 1.0)])];
            drawn.extend(lines.iter().cloned());
            let panel = Panel {
                place: Place { left, top, width: PANEL - 8.0, height: PANEL - 8.0 },
                title,
                x_label: "predicted",
                y_label: "observed",
                x: 0.0..1.0,
                y: 0.0..1.02,
                x_ticks: 6,
                y_ticks: 6,
            };
            canvas.panel(&panel, &drawn)?;
        }
        let (left, top) = place(self.panels.len());
        canvas.legend(left + 20.0, top + 40.0, &self.legend)
    }
}
