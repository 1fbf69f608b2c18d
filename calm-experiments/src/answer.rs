//! What a run has found, in few words: the best certified threshold for each kind of guarantee, then a table.
//! The same is printed and written as Markdown.

use calm_engine::waiting::BUSY;
use calm_names::counted;

use crate::config::{Plan, label};
use crate::report::page::signed;
use crate::report::shown::{Headline, certified_at, headlines, policy_of};
use crate::statistics::{CalibrationRow, Guarantee, Results, SweepRow};
use crate::summary::quality_of;

/// How wide a line of the text may be.
const WIDTH: usize = 100;

/// The answer of one run.
pub struct Answer {
    /// A sentence about the full model, and one for each kind of guarantee.
    sentences: Vec<String>,
    settings: Table,
    certified: Table,
    /// What is to be known of the trials and of the files.
    notes: Vec<String>,
}

struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Answer {
    /// Finds it in the tables of a run.
    pub fn new(plan: &Plan, results: &Results) -> Self {
        let settings = settings(plan, results);
        let certified = certified(plan, results);
        let notes = notes(plan, results);
        Self { sentences: sentences(plan, results), settings, certified, notes }
    }

    /// The answer for a terminal, in lines of at most 100 columns unless a name is longer.
    pub fn text(&self) -> String {
        let blocks = [
            self.sentences.join("\n"),
            self.settings.text(),
            self.certified.text(),
            self.notes.iter().map(|note| wrapped(note)).collect::<Vec<_>>().join("\n"),
        ];
        blocks.into_iter().filter(|block| !block.is_empty()).collect::<Vec<_>>().join("\n\n")
    }

    /// The answer as Markdown, under a heading of this name.
    pub fn markdown(&self, name: &str) -> String {
        let sentences = self.sentences.iter().map(|sentence| format!("- {sentence}\n")).collect::<String>();
        let notes = self.notes.iter().map(|note| format!("\n{note}\n")).collect::<String>();
        format!("# {name}\n\n{sentences}\n{}\n{}{notes}", self.settings.markdown(), self.certified.markdown())
    }
}

/// `agreement at 0.9: 2.44 of 8 layers, 1.43 x, BLEU 33.2 (−1.2), certified for textual 0.1`.
fn sentences(plan: &Plan, results: &Results) -> Vec<String> {
    let quality_name = plan.quality.label();
    let Some(full) = results.full() else { return Vec::new() };
    let full_quality = quality_of(full, plan.quality);
    let mut sentences = vec![format!(
        "full model: {}, {quality_name} {full_quality:.1} ({:.1} to {:.1})",
        counted(results.num_layers, "layer"),
        full.quality_low,
        full.quality_high
    )];
    for Headline { objective, delta, certified } in headlines(plan, results) {
        let Some((guarantee, row)) = certified.first() else {
            sentences.push(format!("{objective} {delta}: no threshold is certified"));
            continue;
        };
        let quality = row_of(guarantee, row, results).map(|row| quality_of(row, plan.quality));
        let quality = quality.map(|quality| {
            let difference = signed(quality - full_quality, 1);
            format!(", {quality_name} {quality:.1} ({difference})")
        });
        sentences.push(format!(
            "{} at {}: {:.2} of {} layers, {:.2} x{}, certified for {objective} {delta}",
            label(&guarantee.policy),
            row.threshold,
            row.test_average_layers,
            results.num_layers,
            row.test_speedup,
            quality.unwrap_or_default()
        ));
    }
    sentences
}

/// The full model, the best static depth and the oracle.
fn settings(plan: &Plan, results: &Results) -> Table {
    let best_static = crate::summary::best_static(results, plan.quality);
    let static_name =
        format!("best static depth, {}", best_static.and_then(|row| row.static_layers).unwrap_or(0));
    let oracle = results.sweep.iter().find(|row| row.policy == "oracle");
    let named =
        [("full model", results.full()), (static_name.as_str(), best_static), ("oracle (a bound)", oracle)];
    let full_seconds = results.full().map_or(0.0, |full| full.seconds);
    let rows = named.into_iter().filter_map(|(name, row)| {
        let row = row?;
        Some(vec![
            name.to_owned(),
            format!("{:.2}", row.average_layers),
            format!("{:.2}", full_seconds / row.seconds),
            quality_with_interval(row, plan),
        ])
    });
    let head = ["", "layers", "speed-up", plan.quality.name()].map(str::to_owned).to_vec();
    Table { head, rows: rows.collect() }
}

/// The method with the fewest layers for each tolerance.
fn certified(plan: &Plan, results: &Results) -> Table {
    let mut rows = Vec::new();
    for objective in &plan.objectives {
        for delta in &objective.deltas {
            let name = format!("{} {delta}", objective.kind);
            let best = certified_at(results, objective.kind.name(), delta.get());
            let Some((guarantee, row)) = best.first() else {
                let empty = String::new;
                rows.push(vec![name, "none".to_owned(), empty(), empty(), empty(), empty(), empty()]);
                continue;
            };
            let quality = row_of(guarantee, row, results).map(|row| quality_with_interval(row, plan));
            rows.push(vec![
                name,
                short(&guarantee.policy),
                row.threshold.to_string(),
                format!("{:.2}", row.test_average_layers),
                format!("{:.2}", row.test_speedup),
                format!("{:.3}", row.test_loss),
                quality.unwrap_or_default(),
            ]);
        }
    }
    let head = ["guarantee", "fewest layers", "threshold", "layers", "speed-up", "loss"];
    let head = head.into_iter().chain([plan.quality.name()]).map(str::to_owned).collect();
    Table { head, rows }
}

/// The name of a family without its decay and exits, which the sentences and files have.
fn short(family: &str) -> String {
    let label = label(family);
    label.split_once(" (").map_or(label.clone(), |(name, _)| name.to_owned())
}

fn notes(plan: &Plan, results: &Results) -> Vec<String> {
    let mut notes: Vec<String> = busy_note(results).into_iter().collect();
    if let Some((_, first)) = results.trials.first() {
        let worst = |of: fn(&crate::trials::TrialsRow) -> usize| {
            results.trials.iter().map(|(_, row)| of(row)).max().unwrap_or(0)
        };
        notes.push(format!(
            "{}, each calibrated on {} of the calibration {}s: the loss on all of these exceeds the tolerance in at most \
             {} of them (up to {} are in keeping with epsilon {}), that on the {} others in at most {}.",
            counted(first.trials, "trial"),
            first.calibration_examples,
            plan.calibration.columns.exchangeable(),
            worst(|row| row.pool_violations),
            first.accepted_violations,
            plan.epsilon,
            first.test_examples,
            worst(|row| row.test_violations)
        ));
    }
    notes
}

/// What is said where other programs kept the cores busy.
pub(crate) fn busy_note(results: &Results) -> Option<String> {
    (results.waited > BUSY).then(|| {
        format!(
            "Warning: speed-ups mean little. Other programs kept the cores busy: workers waited for one in {:.0} % of the \
             time of decoding.",
            100.0 * results.waited
        )
    })
}

/// The row of the sweep of a certified threshold.
fn row_of<'a>(guarantee: &Guarantee, row: &CalibrationRow, results: &'a Results) -> Option<&'a SweepRow> {
    results.row(policy_of(guarantee, row)?)
}

fn quality_with_interval(row: &SweepRow, plan: &Plan) -> String {
    format!("{:.1} ({:.1} to {:.1})", quality_of(row, plan.quality), row.quality_low, row.quality_high)
}

impl Table {
    /// The table in columns, of which the first one is to the left.
    fn text(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| lines().map(|cells| cells[column].chars().count()).max().unwrap_or(0))
            .collect();
        let line = |cells: &Vec<String>| {
            let cells = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            });
            cells.collect::<String>().trim_end().to_owned()
        };
        lines().map(line).collect::<Vec<_>>().join("\n")
    }

    fn markdown(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = format!("|{}\n", "---|".repeat(self.head.len()));
        line(&self.head) + &rule + &self.rows.iter().map(|cells| line(cells)).collect::<String>()
    }
}

/// A text in lines of at most [`WIDTH`] columns.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(word.to_owned());
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.join("\n")
}
