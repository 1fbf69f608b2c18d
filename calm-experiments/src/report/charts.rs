//! Charts of a page, with their legends beside them.

use calm_plots::{Chart, LegendEntry, Line, Look, Point};
use serde::Serialize;

use super::shown::Shown;
use crate::outputs::SplitOutputs;
use crate::plots::looks::{ORACLE, look_of};

/// Width and height of a chart in CSS pixels. Pages show it a fourth larger where there is room, and the text
/// in it with it.
const SIZE: (u32, u32) = (440, 295);
/// Fewer outputs than these tell nothing about a position.
const FEWEST_OUTPUTS: usize = 10;

/// A chart as a page shows it.
#[derive(Debug, Serialize)]
pub(crate) struct ChartView {
    svg: String,
    legend: Vec<Entry>,
}

/// A line of a legend.
#[derive(Debug, Serialize)]
struct Entry {
    swatch: String,
    text: String,
}

impl ChartView {
    /// Draws a chart, which `description` tells to those who cannot see it.
    pub(crate) fn new(chart: &Chart, description: &str) -> anyhow::Result<Self> {
        let entry = |entry: &LegendEntry| {
            Ok::<_, anyhow::Error>(Entry { swatch: entry.swatch_svg()?, text: entry.text.clone() })
        };
        // The page has its own headings.
        let untitled = Chart { title: String::new(), ..chart.clone() };
        Ok(Self {
            svg: untitled.inline_svg(SIZE, description)?,
            legend: chart.legend.iter().map(entry).collect::<Result<_, _>>()?,
        })
    }
}

/// The mean exit layer at each position of the outputs, a line for each method, at the first of its
/// thresholds that is shown; `None` if no setting that is shown varies.
pub(super) fn layers_by_position(shown: &[Shown], test: &SplitOutputs<'_>) -> anyhow::Result<Option<Chart>> {
    let (mut lines, mut legend, mut families) = (Vec::new(), Vec::new(), Vec::new());
    for setting in shown.iter().filter(|shown| !["full", "static"].contains(&shown.policy.kind().name)) {
        let family = setting.policy.family();
        if families.contains(&family) {
            continue;
        }
        let positions = test.of(setting.policy)?.positions.iter().enumerate();
        let points: Vec<Point> = positions
            .take_while(|(_, (tokens, _))| *tokens >= FEWEST_OUTPUTS)
            .map(|(position, &(tokens, layers))| {
                Point::new(position as f64 + 1.0, layers as f64 / tokens as f64)
            })
            .collect();
        let look = match setting.policy.kind().name {
            "oracle" => Look { line: Line::Dashed, ..ORACLE },
            _ => look_of(&family),
        };
        legend.push(LegendEntry::new(look, &setting.id));
        lines.push((look, points));
        families.push(family);
    }
    let last = lines.iter().flat_map(|(_, points)| points).map(|point| point.x).fold(0.0, f64::max);
    Ok((last > 0.0).then(|| Chart {
        title: String::new(),
        x_label: "position in the output, in tokens".to_owned(),
        y_label: "mean exit layer".to_owned(),
        x: 0.0..last + 1.0,
        y: 0.0..test.num_layers as f64 + 0.4,
        x_ticks: 8,
        y_ticks: test.num_layers + 1,
        lines,
        legend,
    }))
}
