//! The losses of one calibration against the threshold, with their bounds.

use std::path::{Path, PathBuf};

use anyhow::Context;
use calm_calibrate::Calibration;
use calm_plots::palette::{BLUE, GREEN, VERMILLION};
use calm_plots::{
    Canvas, Chart, DrawingBackend, Drawn, Figure, LegendEntry, Line, Look, Marker, Place, Point, REFERENCE,
    save,
};

const MEAN: Look = Look { colour: BLUE, marker: Marker::Circle, line: Line::Solid };
const BOUND: Look = Look { colour: VERMILLION, marker: Marker::None, line: Line::Solid };
const CERTIFIED: Look = Look { colour: GREEN, marker: Marker::None, line: Line::Dashed };

struct Risk {
    name: String,
    chart: Chart,
}

/// Draws `path` as SVG and PNG, whichever of the two its ending is: the mean loss at each threshold, its
/// upper bound, the tolerance, and the certified threshold.
///
/// # Errors
/// The path has no name, or a file cannot be written.
pub fn draw_risk(calibration: &Calibration, bounds: &[f64], path: &Path) -> anyhow::Result<[PathBuf; 2]> {
    let name = path.file_stem().context("a picture needs a name")?.to_string_lossy().into_owned();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(save(&Risk { name, chart: chart(calibration, bounds) }, folder)?)
}

fn chart(calibration: &Calibration, bounds: &[f64]) -> Chart {
    let Calibration { thresholds, empirical_losses, threshold, delta, epsilon, fallback, .. } = calibration;
    let points = |losses: &[f64]| -> Vec<Point> {
        thresholds.iter().zip(losses).map(|(&threshold, &loss)| Point::new(threshold, loss)).collect()
    };
    let delta = delta.get();
    let most = empirical_losses.iter().chain(bounds).copied().fold(delta, f64::max);
    let least = empirical_losses.iter().copied().fold(0.0, f64::min);
    let x = thresholds.last().map_or(0.0, |least| least - 0.02)..1.02;
    let y = 1.05 * least..1.05 * most;
    let mut lines = vec![
        (REFERENCE, vec![Point::new(x.start, delta), Point::new(x.end, delta)]),
        (BOUND, points(bounds)),
        (MEAN, points(empirical_losses)),
    ];
    let mut legend = vec![
        LegendEntry::new(REFERENCE, format!("delta {delta}")),
        LegendEntry::new(BOUND, format!("upper bound, epsilon {epsilon}")),
        LegendEntry::new(MEAN, "mean loss"),
    ];
    if !fallback {
        lines.push((CERTIFIED, vec![Point::new(*threshold, y.start), Point::new(*threshold, y.end)]));
        legend.push(LegendEntry::new(CERTIFIED, format!("certified: {threshold}")));
    }
    Chart {
        title: String::new(),
        x_label: "threshold".to_owned(),
        y_label: "loss".to_owned(),
        x,
        y,
        x_ticks: 10,
        y_ticks: 8,
        lines,
        legend,
    }
}

impl Figure for Risk {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> (u32, u32) {
        (720, 380)
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>) -> Drawn<DB> {
        let place = Place { left: 8.0, top: 8.0, width: 490.0, height: 364.0 };
        canvas.panel(&self.chart.panel(place), &self.chart.lines)?;
        canvas.legend(512.0, 30.0, &self.chart.legend)
    }
}
