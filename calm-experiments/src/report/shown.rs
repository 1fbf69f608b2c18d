//! Which settings a report shows in detail: the full model, each method where the paper's tolerance is
//! certified, the policies that the configuration lists, and the oracle.

use calm_core::PolicySpec;
use serde::Serialize;

use crate::config::{ObjectiveKind, Plan};
use crate::statistics::{CalibrationRow, Guarantee, Results, SweepRow};

/// A setting that is shown.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Shown {
    /// The id of the policy.
    pub(super) id: String,
    #[serde(skip)]
    pub(super) policy: PolicySpec,
    /// Why it is shown, such as `certified: textual 0.1`.
    pub(super) note: String,
}

/// The tolerance of an objective that a report is about.
pub(crate) struct Headline<'a> {
    pub(crate) objective: &'static str,
    pub(crate) delta: f64,
    /// The methods that are certified for it, the one with the fewest layers first.
    pub(crate) certified: Vec<(&'a Guarantee, &'a CalibrationRow)>,
}

/// For each objective the tolerance next to the first one of the paper's table 2, or the next larger one that
/// something is certified for.
pub(crate) fn headlines<'a>(plan: &Plan, results: &'a Results) -> Vec<Headline<'a>> {
    let headline = |kind: ObjectiveKind, deltas: Vec<f64>| {
        let papers = if kind == ObjectiveKind::Textual { 0.1 } else { 0.02 };
        let nearest =
            deltas.iter().copied().min_by(|a, b| (a - papers).abs().total_cmp(&(b - papers).abs()))?;
        let at = |delta: f64| {
            let certified = certified_at(results, kind.name(), delta);
            Headline { objective: kind.name(), delta, certified }
        };
        let not_smaller = deltas.iter().filter(|&&delta| delta >= nearest);
        let with_any = not_smaller.map(|&delta| at(delta)).find(|headline| !headline.certified.is_empty());
        Some(with_any.unwrap_or_else(|| at(nearest)))
    };
    let objectives = plan.objectives.iter();
    objectives
        .filter_map(|objective| {
            headline(objective.kind, objective.deltas.iter().map(|delta| delta.get()).collect())
        })
        .collect()
}

/// What is certified for a tolerance, the method with the fewest layers first.
pub(crate) fn certified_at<'a>(
    results: &'a Results,
    objective: &str,
    delta: f64,
) -> Vec<(&'a Guarantee, &'a CalibrationRow)> {
    let rows = results.calibration.iter().filter(|(guarantee, row)| {
        guarantee.objective == objective && guarantee.delta == delta && !row.fallback
    });
    let mut certified: Vec<_> = rows.map(|(guarantee, row)| (guarantee, row)).collect();
    certified.sort_by(|(_, a), (_, b)| a.test_average_layers.total_cmp(&b.test_average_layers));
    certified
}

/// The policy of a certified row.
pub(crate) fn policy_of(guarantee: &Guarantee, row: &CalibrationRow) -> Option<PolicySpec> {
    PolicySpec::of_family(&guarantee.policy, row.threshold).ok()
}

/// All that is shown, each once.
pub(super) fn shown(plan: &Plan, results: &Results) -> Vec<Shown> {
    let mut found: Vec<Shown> = Vec::new();
    let mut add = |policy: PolicySpec, note: String| {
        // A threshold that was not decoded on the test split has nothing to show.
        if results.row(policy).is_none() {
            return;
        }
        match found.iter_mut().find(|shown| shown.policy == policy) {
            Some(shown) if !note.is_empty() => shown.note += &format!(", {note}"),
            Some(_) => {}
            None => found.push(Shown { id: policy.to_string(), policy, note }),
        }
    };
    add(PolicySpec::full(), "all layers".to_owned());
    for Headline { objective, delta, certified } in headlines(plan, results) {
        for (guarantee, row) in certified {
            if let Some(policy) = policy_of(guarantee, row) {
                add(policy, format!("{objective} {delta}"));
            }
        }
    }
    for &policy in &plan.policies {
        add(policy, "listed in the configuration".to_owned());
    }
    if let Some(best) = best_static(plan, results) {
        add(best.spec, "the best static depth".to_owned());
    }
    add(PolicySpec::oracle(), "a bound, which takes all layers".to_owned());
    found
}

fn best_static<'a>(plan: &Plan, results: &'a Results) -> Option<&'a SweepRow> {
    crate::summary::best_static(results, plan.quality)
}
