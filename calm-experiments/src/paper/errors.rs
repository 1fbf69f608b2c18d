//! How errors spread: the paper's section 3.3 with its figures 2a, 2b and 2c.

use calm_core::{PolicySpec, Threshold};
use calm_plots::{Chart, LegendEntry, Look, Marker, Point, REFERENCE, palette};

use super::TaskResult;
use super::published::{self, name_of};
use super::section::{Section, Table};
use crate::report::page::signed;
use crate::statistics::SweepRow;
use crate::summary::quality_of;

/// Fewer outputs than these tell nothing about a position.
const FEWEST_OUTPUTS: usize = 20;

/// Figure 2a: one token of each output is replaced.
pub(super) fn perturbation(main: &[&TaskResult<'_>]) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "Figure 2a",
        "One token of each full-depth output is replaced, by the last layer's tenth best (sampling-based) or by the first \
         layer's best (layer-based), and decoding goes on from there. The curves show how much the score of the outputs that \
         reach the position changes.",
    );
    for task in main {
        let kinds = [
            ("perturbed-sampling", Look { marker: Marker::Square, ..Look::solid(palette::VERMILLION) }),
            ("perturbed-layer", Look { marker: Marker::Circle, ..Look::solid(palette::BLUE) }),
        ];
        let mut curves = Vec::new();
        for (kind, look) in kinds {
            curves.push((look, kind, task.changes(kind)?));
        }
        let points = || curves.iter().flat_map(|(_, _, points)| points);
        let last = points().map(|point| point.x).fold(0.0, f64::max);
        if last == 0.0 {
            continue;
        }
        let least = points().map(|point| point.y).fold(-0.1, f64::min);
        let most = points().map(|point| point.y).fold(0.0, f64::max);
        let x = 0.0..last + 1.0;
        let mut lines = vec![(REFERENCE, vec![Point::new(x.start, 0.0), Point::new(x.end, 0.0)])];
        lines.extend(curves.iter().map(|(look, _, points)| (*look, points.clone())));
        let mut legend: Vec<_> =
            curves.iter().map(|(look, kind, _)| LegendEntry::new(*look, *kind)).collect();
        legend.push(LegendEntry::new(REFERENCE, "full model"));
        let chart = Chart {
            title: String::new(),
            x_label: "position of the replaced token".to_owned(),
            y_label: format!("change of {}", task.plan.quality.label()),
            x,
            y: 1.08 * least..most + 0.05 * (most - least),
            x_ticks: 8,
            y_ticks: 6,
            lines,
            legend,
        };
        section.chart(&task.title(), &chart)?;

        let mean =
            |points: &[Point]| points.iter().map(|point| point.y).sum::<f64>() / points.len().max(1) as f64;
        let [sampling, layer] = [0, 1].map(|curve: usize| &curves[curve].2[..]);
        if sampling.len() >= 4 {
            let (early, late) = sampling.split_at(sampling.len() / 2);
            let (early, late) = (mean(early), mean(late));
            section.claim(
                format!("{}: the earlier the change, the lower the score", task.title()),
                early < late,
                format!("sampling-based changes cost {:.1} in the earlier half of the positions and {:.1} in the later one", -early, -late),
            );
        }
        section.claim(
            format!("{}: layer-based changes cost much less than sampling-based ones", task.title()),
            mean(layer) > 0.5 * mean(sampling),
            format!("{:.1} against {:.1} on average", -mean(layer), -mean(sampling)),
        );
    }
    Ok(section)
}

impl TaskResult<'_> {
    /// The change of the score at each position that was perturbed.
    fn changes(&self, kind: &str) -> anyhow::Result<Vec<Point>> {
        let full = self.test.of(PolicySpec::full())?;
        let references = self.test.dataset.references();
        let mut points = Vec::new();
        for policy in
            self.results.sweep.iter().map(|row| row.spec).filter(|policy| policy.kind().name == kind)
        {
            let position = policy.parameters().position.unwrap_or(0);
            // The end of an output is a token too, but to replace it only makes the output longer.
            let reached: Vec<usize> =
                (0..full.texts.len()).filter(|&example| full.costs[example].tokens > position + 1).collect();
            if reached.len() < FEWEST_OUTPUTS {
                continue;
            }
            let of = |texts: &[String]| {
                let texts: Vec<&str> = reached.iter().map(|&example| texts[example].as_str()).collect();
                let references: Vec<&[String]> = reached.iter().map(|&example| references[example]).collect();
                self.plan.quality.corpus_score(&texts, &references)
            };
            let change = of(&self.test.of(policy)?.texts)? - of(&full.texts)?;
            points.push(Point::new(position as f64, change));
        }
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        Ok(points)
    }

    /// The rows of the sweep of one family of policies, by their layers.
    fn family(&self, family: &str) -> Vec<&SweepRow> {
        let mut rows: Vec<&SweepRow> =
            self.results.sweep.iter().filter(|row| row.spec.family() == family).collect();
        rows.sort_by(|a, b| a.average_layers.total_cmp(&b.average_layers));
        rows
    }
}

/// The decays of figures 2b and 2c, with their looks.
const DECAYS: [(Option<f64>, Look); 3] = [
    (None, Look { marker: Marker::Square, ..SOLID_BLACK }),
    (Some(1.0), Look { colour: palette::ORANGE, marker: Marker::Triangle, ..SOLID_BLACK }),
    (Some(4.0), Look { colour: palette::BLUE, marker: Marker::Circle, ..SOLID_BLACK }),
];

const SOLID_BLACK: Look =
    Look { colour: palette::BLACK, marker: Marker::None, line: calm_plots::Line::Solid };

fn decay_name(decay: Option<f64>) -> String {
    decay.map_or("constant".to_owned(), |tau| format!("τ = {tau}"))
}

/// Figure 2b: thresholds that fall with the position.
pub(super) fn decays(main: &[&TaskResult<'_>]) -> anyhow::Result<Section> {
    let lambda = 0.8;
    let mut section = Section::new(
        "Figure 2b",
        format!(
            "The threshold along an output for λ = {lambda}, by equation 5: clip(0.9 λ + 0.1 exp(−τ t / N), 0, 1)."
        ),
    );
    let Some(task) = main.first() else { return Ok(section) };
    let length = task.plan.max_tokens;
    let mut chart = Chart {
        title: String::new(),
        x_label: "position t".to_owned(),
        y_label: "threshold".to_owned(),
        x: 0.0..length as f64,
        y: 0.7..0.85,
        x_ticks: 8,
        y_ticks: 6,
        lines: Vec::new(),
        legend: Vec::new(),
    };
    for (decay, look) in DECAYS {
        let threshold = Threshold::new(lambda, decay)?;
        let points = (0..length).map(|position| Point::new(position as f64, threshold.at(position, length)));
        let look = Look { marker: Marker::None, ..look };
        chart.lines.push((look, points.collect()));
        chart.legend.push(LegendEntry::new(look, decay_name(decay)));
    }
    section.chart(&format!("N = {length}"), &chart)?;
    Ok(section)
}

/// Figure 2c: what a decay does to the trade-off of the softmax measure.
pub(super) fn trade_off(main: &[&TaskResult<'_>]) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "Figure 2c",
        "Likeness to the full model's outputs against layers, for the softmax measure with thresholds of several decays.",
    );
    for task in main {
        let (mut lines, mut legend, mut largest_steps) = (Vec::new(), Vec::new(), Vec::new());
        for (decay, look) in DECAYS {
            let family = decay.map_or("calm-softmax-*".to_owned(), |tau| format!("calm-softmax-*-tau{tau}"));
            let likeness =
                |row: &&SweepRow| Point::new(row.average_layers, 100.0 * (1.0 - row.textual_distance));
            let points: Vec<Point> = task.family(&family).iter().map(likeness).collect();
            if points.len() < 2 {
                continue;
            }
            let steps = points.windows(2).map(|pair| pair[1].y - pair[0].y);
            largest_steps.push((decay, steps.fold(0.0, f64::max)));
            lines.push((look, points));
            legend.push(LegendEntry::new(look, decay_name(decay)));
        }
        let points = || lines.iter().flat_map(|(_, points): &(Look, Vec<Point>)| points);
        if lines.is_empty() {
            continue;
        }
        let least = points().map(|point| point.y).fold(100.0, f64::min);
        let chart = Chart {
            title: String::new(),
            x_label: "average decoder layers per token".to_owned(),
            y_label: "likeness to the full model, 0 to 100".to_owned(),
            x: 0.7..task.results.num_layers as f64 + 0.3,
            y: least - 2.0..101.0,
            x_ticks: task.results.num_layers + 1,
            y_ticks: 6,
            lines,
            legend,
        };
        section.chart(&task.title(), &chart)?;
        if let [(_, constant), .., (_, decayed)] = largest_steps[..] {
            section.claim(
                format!("{}: with a constant threshold likeness falls by more than ten points in one step; a decay gives points between", task.title()),
                constant > 10.0 && decayed < constant,
                format!("the largest step between neighbouring thresholds is {constant:.1} points with a constant threshold and {decayed:.1} with τ = 4"),
            );
        }
    }
    Ok(section)
}

/// The experiment of section 3.3.1: what later tokens see of those that left early.
pub(super) fn propagation(main: &[&TaskResult<'_>]) -> Section {
    let mut section = Section::new(
        "Section 3.3, error propagation",
        "Tokens leave at the first layer that agrees with the last one (the oracle), and what later tokens see of them is made \
         in several ways. The paper's numbers are of CNN/DM.",
    );
    for task in main {
        let mut rows = Vec::new();
        let quality = |id: &str| {
            let row = task.results.sweep.iter().find(|row| row.spec.to_string() == id)?;
            Some((quality_of(row, task.plan.quality), row.average_layers))
        };
        let is_papers = task.dataset == crate::config::PaperDataset::CnnDm;
        for (id, about, rouge, layers) in published::PROPAGATION {
            let Some((here, average)) = quality(id) else { continue };
            let papers = |text: String| if is_papers { text } else { String::new() };
            rows.push(vec![
                about.to_owned(),
                id.to_owned(),
                format!("{here:.2}"),
                papers(format!("{rouge:.2}")),
                if id == "shallow-cache-1" { String::new() } else { format!("{average:.2}") },
                papers(layers.map_or(String::new(), |layers| format!("{layers:.2}"))),
            ]);
        }
        let label = task.plan.quality.label();
        let head =
            ["what later tokens see", "policy", label, "paper's", "layers", "paper's"].map(str::to_owned);
        section.tables.push(Table { title: task.title(), head: head.to_vec(), rows });
        let [full, oracle, shallow, copied] =
            ["full", "oracle", "shallow-cache-1", "oracle-copied"].map(quality);
        if let (Some(full), Some(oracle), Some(shallow), Some(copied)) = (full, oracle, shallow, copied) {
            section.claim(
                format!(
                    "{}: the oracle and caches of the first layer's state lose next to nothing",
                    task.title()
                ),
                full.0 - oracle.0 < 1.0 && full.0 - shallow.0 < 1.0,
                format!("{} and {} {label}", signed(oracle.0 - full.0, 2), signed(shallow.0 - full.0, 2)),
            );
            section.claim(
                format!("{}: copied keys and values lose much", task.title()),
                full.0 - copied.0 > 5.0,
                format!("{} {label}", signed(copied.0 - full.0, 2)),
            );
            let papers = published::oracle_layers(task.dataset);
            section.claim(
                format!(
                    "{}: the oracle needs about {papers} layers ({})",
                    task.title(),
                    name_of(task.dataset)
                ),
                (oracle.1 - papers).abs() < 0.5,
                format!("{:.2} of {}", oracle.1, task.results.num_layers),
            );
        }
    }
    section
}
