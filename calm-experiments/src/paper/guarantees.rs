//! Quality, guarantees and their cost: figures 3 and B.1 to B.8, tables 1 and 2.

use calm_core::PolicySpec;

use super::TaskResult;
use super::published::{self, DATASETS, TABLE_2, name_of};
use super::section::{Section, Table};
use crate::plots::guarantees::GuaranteesFigure;
use crate::plots::quality::quality_vs_layers;
use crate::statistics::{CalibrationRow, Guarantee, SweepRow};
use crate::summary::quality_of;
use crate::trials::TrialsRow;

/// The measures of the paper.
const MEASURES: [&str; 3] = ["softmax", "state", "classifier"];

/// Table 1: how long targets are.
pub(super) fn target_lengths(main: &[&TaskResult<'_>]) -> Section {
    let mut section = Section::new(
        "Table 1",
        "Length of the targets in tokens: mean, with the 5th and the 95th percentile. Ours are of the test examples that are \
         decoded here.",
    );
    let rows = main.iter().map(|task| {
        let ours =
            task.target_lengths.clone().map_or("no tokenizer to count them".to_owned(), |mut lengths| {
                lengths.sort_unstable();
                let at = |share: f64| lengths[((lengths.len() - 1) as f64 * share).round() as usize];
                let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
                format!("{mean:.0} ({} to {})", at(0.05), at(0.95))
            });
        let [papers, low, high] = published::target_lengths(task.dataset);
        vec![task.title(), ours, format!("{} {papers} ({low} to {high})", name_of(task.dataset))]
    });
    let head = ["task", "ours", "the paper's"].map(str::to_owned).to_vec();
    section.tables.push(Table { title: String::new(), head, rows: rows.collect() });
    section
}

/// Figure 3 of the first model, or figure B.6 of the second one: quality against layers.
pub(super) fn quality(
    title: &'static str,
    tasks: &[&TaskResult<'_>],
    about: &str,
) -> anyhow::Result<Section> {
    let mut section = Section::new(title, about);
    for task in tasks {
        let (plan, results) = (task.plan, task.results);
        section.chart(&task.title(), &quality_vs_layers(plan, results))?;
        let quality = |row: &SweepRow| quality_of(row, plan.quality);
        let Some(full) = results.full().map(quality) else { continue };
        // The fewest layers at which at most this much is lost.
        let lost = 0.05 * full;
        let fewest = |measure: &str| {
            let rows =
                results.sweep.iter().filter(|row| row.policy == "calm" && row.measure == Some(measure));
            let good = rows.filter(|row| quality(row) >= full - lost);
            good.map(|row| row.average_layers).min_by(f64::total_cmp)
        };
        let found: Vec<(&str, f64)> =
            MEASURES.iter().filter_map(|measure| Some((*measure, fewest(measure)?))).collect();
        let listed = found.iter().map(|(measure, layers)| format!("{measure} {layers:.2}"));
        let listed = listed.collect::<Vec<_>>().join(", ");
        let best = found.iter().min_by(|(_, a), (_, b)| a.total_cmp(b));
        if let Some((best, layers)) = best {
            section.claim(
                format!("{}: more than half of the layers can go with a minor loss", task.title()),
                *layers < 0.5 * results.num_layers as f64,
                format!("layers at a loss of at most 5 % of the quality: {listed}"),
            );
            section.claim(
                format!("{}: the softmax measure needs the fewest layers", task.title()),
                *best == "softmax",
                format!("{best} does, of the paper's three measures"),
            );
        }
    }
    Ok(section)
}

/// Losses and layers over trials whose examples come from one split, for one objective.
pub(super) fn trials(
    title: &'static str,
    tasks: &[&TaskResult<'_>],
    objective: &str,
    trials_of: impl Fn(&TaskResult<'_>) -> Vec<(Guarantee, TrialsRow)>,
    about: &str,
) -> anyhow::Result<Section> {
    let mut section = Section { has_pairs: true, ..Section::new(title, about) };
    for task in tasks {
        let rows: Vec<_> =
            trials_of(task).into_iter().filter(|(guarantee, _)| guarantee.objective == objective).collect();
        let Some(figure) = GuaranteesFigure::trials(&rows, task.results.num_layers) else { continue };
        for [loss, layers] in &figure.objectives {
            section.chart(&format!("{}, loss", task.title()), loss)?;
            section.chart(&format!("{}, layers", task.title()), layers)?;
        }
        let above: Vec<String> = rows
            .iter()
            .filter(|(guarantee, row)| row.test_loss_mean > guarantee.delta)
            .map(|(guarantee, row)| {
                format!("{} at {}: {:.4}", guarantee.policy, guarantee.delta, row.test_loss_mean)
            })
            .collect();
        let worst = rows.iter().map(|(_, row)| row.pool_violations).max().unwrap_or(0);
        let accepted = rows.first().map_or(0, |(_, row)| row.accepted_violations);
        let exchangeable = task.plan.calibration.columns.exchangeable();
        section.claim(
            format!("{}: the loss stays below the tolerance", task.title()),
            above.is_empty() && worst <= accepted,
            match above.is_empty() {
                true => format!(
                    "all {} means are below it; at most {worst} of {} trials exceed it on all {exchangeable}s, {accepted} are in keeping with ε",
                    rows.len(),
                    task.plan.trials.trials
                ),
                false => format!("above it are {}", above.join(", ")),
            },
        );
    }
    Ok(section)
}

/// Table 2: what certified thresholds take on the test split.
pub(super) fn operating_points(main: &[&TaskResult<'_>]) -> Section {
    let mut section = Section::new(
        "Table 2",
        "Certified thresholds, measured on the test split: layers per token, how many times fewer FLOPs the decoder takes, and \
         the speed-up of whole calls, ours before the paper's. Ours are of one worker among all on CPU, in batches; the paper's \
         of a TPU, one sequence at a time.",
    );
    let of_dataset = |dataset| main.iter().find(|task| task.dataset == dataset);
    let mut head = vec!["guarantee".to_owned(), "measure".to_owned()];
    for dataset in DATASETS {
        if let Some(task) = of_dataset(dataset) {
            head.extend([task.name.to_owned(), name_of(dataset).to_owned()]);
        }
    }
    let cell = |[layers, flops, speed]: [f64; 3]| format!("{layers:.2} / ×{flops:.2} / ×{speed:.2}");
    let mut rows = Vec::new();
    for (objective, delta, measure, papers) in TABLE_2 {
        let mut row = vec![format!("{objective} {delta}"), measure.to_owned()];
        for (dataset, papers) in DATASETS.into_iter().zip(papers) {
            if let Some(task) = of_dataset(dataset) {
                row.push(task.certified(objective, delta, measure).map_or("not asked for".to_owned(), cell));
                row.push(cell(papers));
            }
        }
        rows.push(row);
    }
    section.tables.push(Table { title: String::new(), head, rows });
    for task in main {
        let mut fewest = [0_usize; 3];
        let mut guarantees = 0;
        for of_guarantee in TABLE_2.chunks(3) {
            let layers: Vec<Option<f64>> = of_guarantee
                .iter()
                .map(|(objective, delta, measure, _)| Some(task.certified(objective, *delta, measure)?[0]))
                .collect();
            let best = (0..3)
                .filter_map(|place| Some((place, layers[place]?)))
                .min_by(|(_, a), (_, b)| a.total_cmp(b));
            if let Some((best, _)) = best {
                fewest[best] += 1;
                guarantees += 1;
            }
        }
        section.claim(
            format!("{}: the softmax measure needs the fewest layers at every tolerance", task.title()),
            fewest[0] == guarantees,
            format!(
                "softmax {}, state {} and classifier {} of {guarantees} times",
                fewest[0], fewest[1], fewest[2]
            ),
        );
    }
    section
}

impl TaskResult<'_> {
    /// Layers, FLOPs and speed of the certified threshold of a measure, those of the full model if there is
    /// none.
    fn certified(&self, objective: &str, delta: f64, measure: &str) -> Option<[f64; 3]> {
        let is_asked = |(guarantee, _): &&(Guarantee, CalibrationRow)| {
            guarantee.objective == objective
                && guarantee.delta == delta
                && guarantee.measure == Some(measure)
                && guarantee.policy.starts_with("calm-")
        };
        let (guarantee, row) = self.results.calibration.iter().find(is_asked)?;
        let policy = match row.fallback {
            true => PolicySpec::full(),
            false => PolicySpec::of_family(&guarantee.policy, row.threshold).ok()?,
        };
        let flops = |policy: PolicySpec| self.results.row(policy).map(|row| row.flops_per_token);
        let reduction = flops(PolicySpec::full())? / flops(policy)?;
        Some([row.test_average_layers, reduction, row.test_speedup])
    }
}
