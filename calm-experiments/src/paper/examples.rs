//! Figures 4 and B.5: one example of each task at two thresholds, token by token.

use calm_core::PolicySpec;

use super::TaskResult;
use super::section::{Example, Output, Section, Token};
use crate::outputs::distances;
use crate::report::explorer::{pieces, records};

/// The measure whose outputs are shown, as in the paper.
const FAMILY: &str = "calm-softmax-*";

/// The section of the page.
pub(super) fn section(main: &[&TaskResult<'_>]) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "Figures 4 and B.5",
        "One test example of each task with the full model's output and two of the softmax measure, at the thresholds \
         certified for the textual tolerances 0.1 and 0.25. Colours are exit layers. The reports of the tasks show all examples.",
    );
    for task in main {
        let Some((example, policies)) = task.chosen()? else { continue };
        let of_example = &task.test.dataset.examples[example];
        let full = &task.test.of(PolicySpec::full())?.texts[example];
        let mut outputs = Vec::new();
        for policy in std::iter::once(PolicySpec::full()).chain(policies) {
            let text = &task.test.of(policy)?.texts[example];
            let (store, common) = task.units;
            let records = records(store, common, task.test.dataset, policy, task.results.num_layers)?;
            let Some(record) = records.into_iter().nth(example) else { continue };
            let tokens = pieces(&record).into_iter().zip(record.generation.exit_layers.iter());
            let tokens = tokens.map(|(text, &layer)| Token { text, layer });
            outputs.push(Output {
                policy: policy.to_string(),
                layers: record.generation.average_layers().unwrap_or(0.0),
                distance: task.plan.textual_distance().between(text, full),
                tokens: tokens.filter(|token| !token.text.is_empty()).collect(),
            });
        }
        let (title, source, reference) = (task.title(), of_example.source.clone(), of_example.target.clone());
        section.examples.push(Example { title, source, reference, outputs });
    }
    Ok(section)
}

impl TaskResult<'_> {
    /// The place of an example whose output changes at the larger tolerance and hardly at the smaller one,
    /// and the two policies; `None` if they are not certified, or are the same.
    fn chosen(&self) -> anyhow::Result<Option<(usize, [PolicySpec; 2])>> {
        let certified = |delta: f64| {
            let (_, row) = self.results.calibration.iter().find(|(guarantee, row)| {
                guarantee.objective == "textual"
                    && guarantee.delta == delta
                    && guarantee.policy.starts_with(FAMILY)
                    && !row.fallback
            })?;
            PolicySpec::of_family(FAMILY, row.threshold).ok()
        };
        let (Some(careful), Some(bold)) = (certified(0.1), certified(0.25)) else { return Ok(None) };
        if careful == bold {
            return Ok(None);
        }
        let full = &self.test.of(PolicySpec::full())?.texts;
        let of = |policy| -> anyhow::Result<Vec<f64>> {
            Ok(distances(self.plan.textual_distance(), &self.test.of(policy)?.texts, full)?)
        };
        let (near, far) = (of(careful)?, of(bold)?);
        let lengths = &self.test.of(PolicySpec::full())?.costs;
        // Neither a word nor a page.
        let fits = |example: &usize| (6..=40).contains(&lengths[*example].tokens) && near[*example] <= 0.1;
        let example = (0..full.len()).filter(fits).max_by(|a, b| far[*a].total_cmp(&far[*b]).then(b.cmp(a)));
        Ok(example.map(|example| (example, [careful, bold])))
    }
}
