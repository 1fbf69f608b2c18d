//! Configurations of experiments, of several tasks, and of the page of the paper's figures.

use std::path::Path;

use calm_experiments::comparison::Comparison;
use calm_experiments::config::parse;
use calm_experiments::paper::Paper;
use calm_experiments::settings::{calibration_policies, sweep_policies};

/// The file, then overrides, with a zero byte between them.
pub(crate) fn read(input: &[u8]) -> anyhow::Result<()> {
    let path = Path::new("experiment.toml");
    let mut parts = std::str::from_utf8(input)?.split('\0').map(str::to_owned);
    let file = parts.next().unwrap_or_default();
    let overrides: Vec<String> = parts.collect();
    let comparison = Comparison::parse(path, file.clone(), &overrides);
    let paper = Paper::parse(path, file.clone(), &overrides);
    let plan = match (comparison, paper) {
        (Ok(Some(comparison)), _) => comparison.tasks.into_iter().next().map(|(_, plan)| plan),
        (_, Ok(Some(paper))) => paper.tasks().next().map(|(_, plan)| plan.clone()),
        _ => None,
    };
    let plan = plan.map_or_else(|| parse(path, file, &overrides), Ok)?;
    for num_layers in [1, 8] {
        sweep_policies(&plan, num_layers);
    }
    calibration_policies(&plan);
    for series in &plan.series {
        series.label();
        series.levels(8);
    }
    Ok(())
}
