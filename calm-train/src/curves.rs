//! The learning curves of a run, drawn from its log alone.

use std::ops::Range;
use std::path::{Path, PathBuf};

use calm_metrics::Metric;
use calm_plots::{
    Canvas, DrawingBackend, Drawn, Figure, LegendEntry, Line, Look, Marker, Panel, Place, Point,
    legend_width, palette, save,
};
use serde::Deserialize;

use crate::Error;

/// Largest number of step lines whose losses are drawn as they are; more are drawn as a running mean.
const MOST_UNSMOOTHED: usize = 300;
/// Rough number of points that remain of a longer line.
const SMOOTHED_POINTS: usize = 200;
/// Largest number of validations that have markers; more would hide the lines.
const MOST_MARKED: usize = 25;
/// Rough number of exits that the legend names.
const NAMED_EXITS: usize = 12;
/// Height of an axis of losses, in units of the range that the losses need without the start of the run.
const HEADROOM: f64 = 1.5;

const PANEL_WIDTH: f64 = 400.0;
const PANEL_HEIGHT: f64 = 320.0;
const MARGIN: f64 = 8.0;

/// Draws `learning_curves.svg` and `learning_curves.png` into `folder` and returns the two files.
///
/// They show the training loss of every exit over the steps with the last exit's validation loss, and the
/// validation scores of every task with all layers and with half of them. What the log has no line of is left
/// out; if there is nothing to draw, no file is made.
///
/// `log` is a run's `log.jsonl`. Its last line may be incomplete, as a killed run leaves it.
///
/// # Errors
/// Fails if the log cannot be read or is not one, or if a file cannot be written.
pub fn draw_learning_curves(log: &Path, folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let lines = read_log(log)?;
    let panels: Vec<Curves> = [loss_curves(&lines), score_curves(&lines)].into_iter().flatten().collect();
    if panels.is_empty() {
        return Ok(Vec::new());
    }
    let steps = lines.iter().map(|line| line.step).max().unwrap_or(0);
    Ok(save(&LearningCurves { panels, steps }, folder)?.into())
}

/// Returns the step of a line of the log; `None` if it is no such line.
pub(crate) fn step_of_line(line: &str) -> Option<u64> {
    serde_json::from_str::<LogLine>(line).ok().map(|line| line.step)
}

/// The part of a line of the log that is drawn: losses of a training interval, or a validation.
#[derive(Deserialize)]
struct LogLine {
    step: u64,
    loss: Option<f64>,
    #[serde(default)]
    exit_losses: Vec<Option<f64>>,
    validation: Option<Validation>,
}

#[derive(Deserialize)]
struct Validation {
    loss: Option<f64>,
    #[serde(default)]
    tasks: Vec<TaskScores>,
}

#[derive(Deserialize)]
struct TaskScores {
    name: String,
    metric: String,
    score: Option<f64>,
    #[serde(default)]
    exit_scores: Vec<Option<f64>>,
}

fn read_log(path: &Path) -> Result<Vec<LogLine>, Error> {
    let log = calm_files::read(path)?;
    let mut lines = Vec::new();
    for (index, text) in log.split_inclusive(|&byte| byte == b'\n').enumerate() {
        match serde_json::from_slice(text.trim_ascii_end()) {
            Ok(line) => lines.push(line),
            Err(_) if !text.ends_with(b"\n") => {}
            Err(error) => {
                // The place is that in this line alone, which is always the first one for the parser.
                let suffix = format!(" at line 1 column {}", error.column());
                let message = error.to_string();
                let reason = message.strip_suffix(&suffix).unwrap_or(&message);
                let reason = format!("line {}: {reason}, column {}", index + 1, error.column());
                let error = std::io::Error::new(std::io::ErrorKind::InvalidData, reason);
                return Err(calm_files::Error::read(path)(error).into());
            }
        }
    }
    Ok(lines)
}

/// A panel with its legend.
struct Curves {
    title: String,
    y_label: &'static str,
    y: Range<f64>,
    lines: Vec<(Look, Vec<Point>)>,
    legend: Vec<LegendEntry>,
}

fn loss_curves(log: &[LogLine]) -> Option<Curves> {
    let steps: Vec<&LogLine> = log.iter().filter(|line| line.validation.is_none()).collect();
    let exits = steps.iter().map(|line| line.exit_losses.len()).max().unwrap_or(0).max(1);
    let half_window = if steps.len() > MOST_UNSMOOTHED { steps.len() / SMOOTHED_POINTS } else { 0 };
    let mut lines = Vec::new();
    let mut legend = Vec::new();
    let mut settled = f64::MIN;
    for exit in 1..=exits {
        let loss = |line: &LogLine| {
            if exit == exits { line.loss } else { *line.exit_losses.get(exit - 1)? }
        };
        let points = smooth(&points_of(&steps, loss), half_window);
        let Some(usual) = quantile(&points, 0.9) else { continue };
        settled = settled.max(usual);
        // A line needs two points to be seen.
        let marker = if points.len() == 1 { Marker::Circle } else { Marker::None };
        let look = Look { marker, ..Look::solid(palette::sequential(exit - 1, exits)) };
        if exit == 1 || exit == exits || exit.is_multiple_of(exits.div_ceil(NAMED_EXITS)) {
            legend.push(LegendEntry::new(look, format!("exit {exit}")));
        }
        lines.push((look, points));
    }
    let validation: Vec<&LogLine> = log.iter().filter(|line| line.validation.is_some()).collect();
    let points = points_of(&validation, |line| line.validation.as_ref()?.loss);
    // The first validation may be as early as the losses that are cut off, and a run makes few validations.
    if let Some(usual) = quantile(&points, 0.5) {
        settled = settled.max(usual);
        let marker = if points.len() > MOST_MARKED { Marker::None } else { Marker::Diamond };
        let look = Look { colour: palette::ORANGE, marker, line: Line::Dashed };
        legend.push(LegendEntry::new(look, "validation, last exit"));
        lines.push((look, points));
    }
    let (low, high) = extent(&lines)?;
    // The losses of the first steps are several times the later ones, and would make the rest of the run a
    // flat line.
    let high = high.min(low + HEADROOM * (settled - low));
    let title = match 2 * half_window + 1 {
        _ if steps.is_empty() => "validation loss".to_owned(),
        1 => "training loss".to_owned(),
        window => format!("training loss, running mean of {window} values"),
    };
    Some(Curves { title, y_label: "nats per target token", y: axis(low, high), lines, legend })
}

fn score_curves(log: &[LogLine]) -> Option<Curves> {
    let validations: Vec<&LogLine> = log.iter().filter(|line| line.validation.is_some()).collect();
    let all = || validations.iter().filter_map(|line| line.validation.as_ref()).flat_map(|v| &v.tasks);
    let exits = all().map(|task| task.exit_scores.len()).max().unwrap_or(0);
    let half = exits.div_ceil(2);
    let mut tasks: Vec<(&str, &str)> = Vec::new();
    for task in all() {
        if !tasks.contains(&(&task.name, &task.metric)) {
            tasks.push((&task.name, &task.metric));
        }
    }
    let mut lines = Vec::new();
    let mut legend = Vec::new();
    let markers = [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond];
    for (index, &(name, metric)) in tasks.iter().enumerate() {
        let points = |score: &dyn Fn(&TaskScores) -> Option<f64>| {
            points_of(&validations, |line| {
                let tasks = &line.validation.as_ref()?.tasks;
                score(tasks.iter().find(|task| task.name == name && task.metric == metric)?)
            })
        };
        let full = points(&|task| task.score);
        if full.is_empty() {
            continue;
        }
        let marker = if full.len() > MOST_MARKED { Marker::None } else { markers[index % markers.len()] };
        let look = Look { marker, ..Look::solid(palette::categorical(index)) };
        let metric = metric.parse().map_or(metric, |metric: Metric| metric.label());
        legend.push(LegendEntry::new(look, format!("{name}, {metric}")));
        if half < exits {
            let mut with_half = points(&|task| *task.exit_scores.get(half - 1)?);
            with_half.iter_mut().for_each(|point| point.open = true);
            lines.push((Look { line: Line::Dashed, ..look }, with_half));
        }
        lines.push((look, full));
    }
    if half < exits && !legend.is_empty() {
        let is_marked = lines.iter().any(|(look, _): &(Look, Vec<Point>)| look.marker != Marker::None);
        let marker = if is_marked { Marker::Circle } else { Marker::None };
        let look = Look { marker, ..Look::solid(palette::GREY) };
        legend.push(LegendEntry::new(look, format!("all {exits} layers")));
        let look = Look { line: Line::Dashed, ..look };
        legend.push(LegendEntry { open: true, ..LegendEntry::new(look, format!("{half} layers")) });
    }
    let (low, high) = extent(&lines)?;
    let title = "validation score".to_owned();
    Some(Curves { title, y_label: "score, 0 to 100", y: axis(low, high), lines, legend })
}

/// The points of the lines of the log that have a value; JSON has `null` for one that is not finite.
fn points_of(lines: &[&LogLine], value: impl Fn(&LogLine) -> Option<f64>) -> Vec<Point> {
    lines.iter().filter_map(|line| Some(Point::new(line.step as f64, value(line)?))).collect()
}

/// Computes means over a point and up to `half_window` neighbours on either side.
///
/// There is a mean for every `half_window`-th point and for the last one.
fn smooth(points: &[Point], half_window: usize) -> Vec<Point> {
    let Some(last) = points.len().checked_sub(1).filter(|_| half_window > 0) else { return points.to_vec() };
    let kept = (0..last).step_by(half_window).chain([last]);
    let mean = |index: usize| {
        // Where losses fall fastest, the window is symmetric around its point. At the end of the run they
        // hardly fall.
        let reach = half_window.min(index);
        let window = &points[index - reach..=(index + reach).min(last)];
        let sum: f64 = window.iter().map(|point| point.y).sum();
        Point { y: sum / window.len() as f64, ..points[index] }
    };
    kept.map(mean).collect()
}

/// Finds the height below which a `share` of the points lies.
fn quantile(points: &[Point], share: f64) -> Option<f64> {
    let mut heights: Vec<f64> = points.iter().map(|point| point.y).collect();
    heights.sort_by(f64::total_cmp);
    heights.get((share * heights.len() as f64) as usize).copied()
}

/// Finds the lowest and the highest point, if there are any.
fn extent(lines: &[(Look, Vec<Point>)]) -> Option<(f64, f64)> {
    let heights = lines.iter().flat_map(|(_, points)| points).map(|point| point.y);
    heights.fold(None, |extent, y| {
        let (low, high) = extent.unwrap_or((y, y));
        Some((y.min(low), y.max(high)))
    })
}

/// Makes an axis from `low` to `high` with some room, even if both are the same.
///
/// Neither losses nor scores are negative.
fn axis(low: f64, high: f64) -> Range<f64> {
    let room = if low < high { 0.04 * (high - low) } else { 1.0 };
    (low - room).max(0.0)..high + room
}

struct LearningCurves {
    panels: Vec<Curves>,
    steps: u64,
}

impl Curves {
    fn width(&self) -> f64 {
        PANEL_WIDTH + MARGIN + legend_width(&self.legend) + 2.0 * MARGIN
    }
}

impl Figure for LearningCurves {
    fn name(&self) -> &str {
        "learning_curves"
    }

    fn size(&self) -> (u32, u32) {
        let width: f64 = self.panels.iter().map(Curves::width).sum();
        ((MARGIN + width).ceil() as u32, (PANEL_HEIGHT + 2.0 * MARGIN) as u32)
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>) -> Drawn<DB> {
        let mut left = MARGIN;
        for curves in &self.panels {
            let panel = Panel {
                place: Place { left, top: MARGIN, width: PANEL_WIDTH, height: PANEL_HEIGHT },
                title: &curves.title,
                x_label: "steps",
                y_label: curves.y_label,
                x: 0.0..1.03 * self.steps.max(1) as f64,
                y: curves.y.clone(),
                x_ticks: 6,
                y_ticks: 7,
            };
            canvas.panel(&panel, &curves.lines)?;
            canvas.legend(left + PANEL_WIDTH + MARGIN, 46.0, &curves.legend)?;
            left += curves.width();
        }
        Ok(())
    }
}
