//! What stands on the page of one run.

use calm_core::PolicySpec;
use calm_names::counted;
use calm_plots::palette;
use serde::Serialize;

use super::Material;
use super::charts::{ChartView, layers_by_position};
use super::explorer::ExplorerData;
use super::page::{embedded_json, signed};
use super::shown::{Headline, Shown, headlines, policy_of, shown};
use crate::answer::busy_note;
use crate::config::{Plan, label};
use crate::plots::guarantees::{GuaranteesFigure, objective_title};
use crate::plots::quality::quality_vs_layers;
use crate::statistics::{CalibrationRow, Guarantee, Results};
use crate::summary::quality_of;

/// The whole page.
#[derive(Serialize)]
pub(super) struct View {
    name: String,
    /// What was decoded by what, as pairs of a word and its value.
    facts: Vec<(&'static str, String)>,
    num_layers: usize,
    quality_name: &'static str,
    cards: Vec<Card>,
    /// What is wrong with the times, if something is.
    busy_note: Option<String>,
    layers: Vec<LayerColour>,
    quality: ChartView,
    guarantees: Vec<GuaranteeView>,
    trials: Vec<GuaranteeView>,
    trial_note: Option<String>,
    objectives: Vec<ObjectiveView>,
    histograms: Vec<Histogram>,
    positions: Option<ChartView>,
    /// The parts of a call, in the order of [`TimeRow::parts`].
    parts: Vec<PartName>,
    times: Vec<TimeRow>,
    efficiency: Vec<EfficiencyRow>,
    /// The configuration with its overrides.
    configuration: String,
    /// All tables and all outputs that are shown, for scripts.
    data: String,
}

/// A number that a reader looks for first.
#[derive(Serialize)]
struct Card {
    title: String,
    number: String,
    text: String,
    detail: String,
}

/// The colour of a layer's tokens, and of the text on it.
#[derive(Serialize)]
pub(crate) struct LayerColour {
    layer: usize,
    background: String,
    text: &'static str,
}

/// Loss and layers against the tolerance.
#[derive(Serialize)]
struct GuaranteeView {
    title: String,
    loss: ChartView,
    layers: ChartView,
}

/// The certified operating points of one objective.
#[derive(Serialize)]
struct ObjectiveView {
    title: &'static str,
    name: &'static str,
    certified: usize,
    rows: Vec<PointRow>,
}

/// A row of `calibration.csv` with the quality of its policy.
#[derive(Serialize)]
struct PointRow {
    delta: f64,
    method: String,
    #[serde(flatten)]
    row: CalibrationRow,
    /// Missing where the threshold was not decoded on the test split.
    quality: Option<Quality>,
    exceeds: bool,
}

/// The quality of a setting, with the ends of its interval and its difference to the full model's.
#[derive(Serialize)]
struct Quality {
    value: f64,
    low: f64,
    high: f64,
    difference: f64,
}

/// Where the tokens of a setting left.
#[derive(Serialize)]
struct Histogram {
    id: String,
    note: String,
    average_layers: f64,
    bars: Vec<Bar>,
}

#[derive(Serialize)]
struct Bar {
    layer: usize,
    tokens: usize,
    /// Share of all tokens, in percent.
    share: f64,
    /// Height, in percent of the highest bar.
    height: f64,
}

#[derive(Serialize)]
struct PartName {
    name: &'static str,
    colour: String,
}

/// Where the time of a setting went.
#[derive(Serialize)]
struct TimeRow {
    id: String,
    /// Microseconds per output token.
    total: f64,
    /// Width of the bar, in percent of the slowest one.
    width: f64,
    parts: Vec<PartTime>,
}

#[derive(Serialize)]
struct PartTime {
    micros: f64,
    share: f64,
}

/// What a setting takes and gives.
#[derive(Serialize)]
struct EfficiencyRow {
    id: String,
    note: String,
    average_layers: f64,
    executed_layers: f64,
    flops: f64,
    /// Decoder FLOPs of the full model divided by these.
    flops_reduction: f64,
    tokens_per_second: f64,
    speedup: f64,
    mean_length: f64,
    quality: Quality,
    textual_distance: f64,
}

impl View {
    pub(super) fn new(material: &Material<'_>) -> anyhow::Result<Self> {
        let Material { plan, results, test, summary, .. } = material;
        let shown = shown(plan, results);
        let headlines = headlines(plan, results);
        let guarantees =
            |figure: Option<GuaranteesFigure>, what: &str| -> anyhow::Result<Vec<GuaranteeView>> {
                let objectives = figure.map(|figure| figure.objectives).unwrap_or_default();
                let view = |[loss, layers]: &[calm_plots::Chart; 2]| {
                    let spoken = |y: &str| format!("{y} against the tolerance delta, {what}");
                    Ok(GuaranteeView {
                        title: loss.title.clone(),
                        loss: ChartView::new(loss, &spoken("Mean loss"))?,
                        layers: ChartView::new(layers, &spoken("Average layers"))?,
                    })
                };
                objectives.iter().map(view).collect()
            };
        let quality = quality_vs_layers(plan, results);
        let spoken = format!("{} against average decoder layers per token", plan.quality.label());
        let explorer = ExplorerData::new(material, &shown)?;
        let positions = layers_by_position(&shown, test)?;
        let positions =
            positions.map(|chart| ChartView::new(&chart, "Mean exit layer by position in the output"));
        let num_layers = results.num_layers;
        let layers: Vec<LayerColour> =
            (1..=num_layers).map(|layer| LayerColour::new(layer, num_layers)).collect();
        Ok(Self {
            name: plan.name.clone(),
            facts: facts(material),
            num_layers,
            quality_name: plan.quality.label(),
            cards: cards(plan, results, &headlines),
            busy_note: busy_note(results),
            quality: ChartView::new(&quality, &spoken)?,
            guarantees: guarantees(GuaranteesFigure::certified(results), "on the test split")?,
            trials: guarantees(
                GuaranteesFigure::trials(&results.trials, num_layers),
                "mean and deviation over trials",
            )?,
            trial_note: trial_note(results, plan),
            objectives: plan
                .objectives
                .iter()
                .map(|objective| ObjectiveView::new(plan, results, objective.kind.name()))
                .collect(),
            histograms: histograms(&shown, material)?,
            positions: positions.transpose()?,
            parts: PARTS.iter().map(|&(name, _, colour)| PartName { name, colour: css(colour) }).collect(),
            times: times(&shown, material)?,
            efficiency: efficiency(&shown, plan, results),
            configuration: serde_json::to_string_pretty(&plan.raw)?,
            data: embedded_json(&serde_json::json!({
                "summary": summary.without_p_values()?,
                "sweep": results.sweep,
                "calibration": flat(&results.calibration)?,
                "trials": flat(&results.trials)?,
                "colours": layers,
                "explorer": explorer,
            }))?,
            layers,
        })
    }
}

/// Rows of two parts as objects without levels.
fn flat<T: Serialize>(rows: &[(Guarantee, T)]) -> anyhow::Result<Vec<serde_json::Value>> {
    #[derive(Serialize)]
    struct Flat<'a, T> {
        #[serde(flatten)]
        guarantee: &'a Guarantee,
        #[serde(flatten)]
        row: &'a T,
    }
    rows.iter().map(|(guarantee, row)| Ok(serde_json::to_value(Flat { guarantee, row })?)).collect()
}

fn facts(material: &Material<'_>) -> Vec<(&'static str, String)> {
    let Material { plan, results, test, common, summary, .. } = material;
    let calibration = results.calibration.first().map_or(0, |(_, row)| row.calibration_examples);
    let workers: Vec<String> = results.workers.iter().map(usize::to_string).collect();
    vec![
        ("model", format!("{} ({:.12})", plan.model.display(), common.model)),
        ("decoder", counted(results.num_layers, "layer")),
        ("test", counted(test.dataset.examples.len(), "example")),
        ("calibration", counted(calibration, plan.calibration.columns.exchangeable())),
        ("engine", common.device.clone()),
        ("machine", summary.machine()),
        ("workers", workers.join(", ")),
        ("batch", counted(common.batch_size, "row")),
        ("epsilon", plan.epsilon.to_string()),
    ]
}

fn cards(plan: &Plan, results: &Results, headlines: &[Headline<'_>]) -> Vec<Card> {
    let Some(full) = results.full() else { return Vec::new() };
    let quality_name = plan.quality.label();
    let mut cards = vec![Card {
        title: "full model".to_owned(),
        number: format!("{:.1} {quality_name}", quality_of(full, plan.quality)),
        text: format!("{} for every token", counted(results.num_layers, "layer")),
        detail: format!("{:.0} tokens per second and worker", full.tokens_per_second),
    }];
    for Headline { objective, delta, certified } in headlines {
        let title = format!("{objective} {delta}");
        let Some((guarantee, row)) = certified.first() else {
            cards.push(Card {
                title,
                number: "none".to_owned(),
                text: "no threshold is certified".to_owned(),
                detail: "only the full model holds this tolerance".to_owned(),
            });
            continue;
        };
        let swept = policy_of(guarantee, row).and_then(|policy| Quality::of(policy, plan, results));
        let quality = swept.map(|quality| {
            format!("{quality_name} {:.1} ({}), ", quality.value, signed(quality.difference, 1))
        });
        cards.push(Card {
            title,
            number: format!("{:.2} layers", row.test_average_layers),
            text: format!("{} at {}", label(&guarantee.policy), row.threshold),
            detail: format!(
                "{}{:.2} times as fast; loss on test {:.3}",
                quality.unwrap_or_default(),
                row.test_speedup,
                row.test_loss
            ),
        });
    }
    cards
}

impl LayerColour {
    pub(crate) fn new(layer: usize, num_layers: usize) -> Self {
        // Light for tokens that leave early, dark for those that take all layers.
        let colour = palette::viridis(num_layers - layer, num_layers);
        let text = if palette::is_light(colour) { "#000" } else { "#fff" };
        Self { layer, background: css(colour), text }
    }
}

fn css(calm_plots::RGBColor(red, green, blue): calm_plots::RGBColor) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn trial_note(results: &Results, plan: &Plan) -> Option<String> {
    let (_, first) = results.trials.first()?;
    let what = plan.calibration.columns.exchangeable();
    let worst = results.trials.iter().map(|(_, row)| row.pool_violations).max().unwrap_or(0);
    Some(format!(
        "{}, each calibrated on {} of the calibration {what}s and measured on the other {}. A trial violates its guarantee \
         if the loss on all of these {what}s is above δ; up to {} of {} are in keeping with ε = {}, and the worst row here \
         has {worst}.",
        counted(first.trials, "trial"),
        first.calibration_examples,
        first.test_examples,
        first.accepted_violations,
        first.trials,
        plan.epsilon
    ))
}

impl ObjectiveView {
    fn new(plan: &Plan, results: &Results, name: &'static str) -> Self {
        let rows = results.calibration.iter().filter(|(guarantee, _)| guarantee.objective == name);
        let mut rows: Vec<PointRow> = rows
            .map(|(guarantee, row)| {
                let policy = if row.fallback { Some(PolicySpec::full()) } else { policy_of(guarantee, row) };
                PointRow {
                    delta: guarantee.delta,
                    method: label(&guarantee.policy),
                    row: row.clone(),
                    quality: policy.and_then(|policy| Quality::of(policy, plan, results)),
                    exceeds: row.test_loss > guarantee.delta,
                }
            })
            .collect();
        rows.sort_by(|a, b| a.delta.total_cmp(&b.delta));
        let certified = rows.iter().filter(|row| !row.row.fallback).count();
        Self { title: objective_title(name), name, certified, rows }
    }
}

impl Quality {
    fn of(policy: PolicySpec, plan: &Plan, results: &Results) -> Option<Self> {
        let row = results.row(policy)?;
        let value = quality_of(row, plan.quality);
        let full = results.full().map_or(value, |full| quality_of(full, plan.quality));
        Some(Self { value, low: row.quality_low, high: row.quality_high, difference: value - full })
    }
}

fn histograms(shown: &[Shown], material: &Material<'_>) -> anyhow::Result<Vec<Histogram>> {
    let varies = |shown: &&Shown| !["full", "static"].contains(&shown.policy.kind().name);
    let histogram = |shown: &Shown| {
        let outputs = material.test.of(shown.policy)?;
        let tokens: usize = outputs.exits.iter().sum();
        let most = outputs.exits.iter().copied().max().unwrap_or(0);
        let bar = |(index, &count): (usize, &usize)| Bar {
            layer: index + 1,
            tokens: count,
            share: 100.0 * count as f64 / tokens.max(1) as f64,
            height: 100.0 * count as f64 / most.max(1) as f64,
        };
        Ok(Histogram {
            id: shown.id.clone(),
            note: shown.note.clone(),
            average_layers: outputs.cost().average_layers(),
            bars: outputs.exits.iter().enumerate().map(bar).collect(),
        })
    };
    shown.iter().filter(varies).map(histogram).collect()
}

/// The parts of a call on the page: a name, the parts that are added up, and a colour.
const PARTS: [(&str, &[&str], calm_plots::RGBColor); 5] = [
    ("encoder", &["encoder"], palette::GREY),
    ("layers", &["self-attention", "cross-attention", "feed-forward", "propagation"], palette::BLUE),
    ("head", &["head"], palette::ORANGE),
    ("confidence", &["confidence"], palette::VERMILLION),
    ("loop and waiting", &["loop", "waiting"], palette::PURPLE),
];

fn times(shown: &[Shown], material: &Material<'_>) -> anyhow::Result<Vec<TimeRow>> {
    let mut rows = Vec::new();
    for setting in shown {
        let outputs = material.test.of(setting.policy)?;
        if outputs.parts.is_empty() {
            continue;
        }
        let tokens = outputs.cost().tokens.max(1) as f64;
        let seconds = PARTS.map(|(_, names, _)| {
            let encoder = if names.contains(&"encoder") { outputs.encoder_seconds } else { 0.0 };
            encoder + names.iter().filter_map(|name| outputs.parts.get(name)).sum::<f64>()
        });
        let total: f64 = seconds.iter().sum();
        let parts = seconds.map(|seconds| PartTime {
            micros: 1e6 * seconds / tokens,
            share: 100.0 * seconds / total.max(f64::MIN_POSITIVE),
        });
        let (id, total) = (setting.id.clone(), 1e6 * total / tokens);
        rows.push(TimeRow { id, total, width: 0.0, parts: parts.into() });
    }
    let slowest = rows.iter().map(|row| row.total).fold(f64::MIN_POSITIVE, f64::max);
    rows.iter_mut().for_each(|row| row.width = 100.0 * row.total / slowest);
    Ok(rows)
}

fn efficiency(shown: &[Shown], plan: &Plan, results: &Results) -> Vec<EfficiencyRow> {
    let Some(full) = results.full() else { return Vec::new() };
    let row = |shown: &Shown| {
        let row = results.row(shown.policy)?;
        Some(EfficiencyRow {
            id: shown.id.clone(),
            note: shown.note.clone(),
            average_layers: row.average_layers,
            executed_layers: row.executed_layers as f64 / row.tokens.max(1) as f64,
            flops: row.flops_per_token,
            flops_reduction: full.flops_per_token / row.flops_per_token,
            tokens_per_second: row.tokens_per_second,
            speedup: full.seconds / row.seconds,
            mean_length: row.mean_length,
            quality: Quality::of(shown.policy, plan, results)?,
            textual_distance: row.textual_distance,
        })
    };
    shown.iter().filter_map(row).collect()
}
