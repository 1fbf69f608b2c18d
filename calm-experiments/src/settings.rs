//! Which policies a run decodes.

use calm_core::PolicySpec;

use crate::config::{Plan, StaticLayers};

/// The rows of the sweep: the full model, static depths, the oracle, each family at each threshold, and what
/// the configuration lists besides.
pub fn sweep_policies(plan: &Plan, num_layers: usize) -> Vec<PolicySpec> {
    rows(plan, num_layers, calm_policies(plan))
}

/// The rows of a sweep that has families only at these of their thresholds.
pub fn certified_rows(plan: &Plan, num_layers: usize, certified: &[PolicySpec]) -> Vec<PolicySpec> {
    rows(plan, num_layers, calm_policies(plan).filter(|policy| certified.contains(policy)))
}

fn rows(plan: &Plan, num_layers: usize, families: impl Iterator<Item = PolicySpec>) -> Vec<PolicySpec> {
    let depths = match &plan.static_layers {
        StaticLayers::All => (1..=num_layers).collect(),
        StaticLayers::Some(layers) => layers.clone(),
    };
    let mut policies = vec![PolicySpec::full()];
    policies.extend(depths.into_iter().map(PolicySpec::fixed));
    policies.extend(plan.oracle.then(PolicySpec::oracle));
    policies.extend(families);
    let others: Vec<_> = plan.policies.iter().filter(|policy| !policies.contains(policy)).copied().collect();
    policies.extend(others);
    // What only the page of the paper's figures needs.
    let of_page = plan.raw.paper.iter().flat_map(|paper| &paper.policies);
    let of_page: Vec<_> = of_page.filter(|policy| !policies.contains(policy)).copied().collect();
    policies.extend(of_page);
    policies
}

/// What thresholds are certified with: the full model, each measure at each threshold.
pub fn calibration_policies(plan: &Plan) -> Vec<PolicySpec> {
    std::iter::once(PolicySpec::full()).chain(calm_policies(plan)).collect()
}

/// The policy whose generations stand for those of `policy`: what is the full model by another name, such as
/// a threshold of 1, is not decoded twice.
pub fn decoded_as(policy: PolicySpec, num_layers: usize) -> PolicySpec {
    if policy.is_full(num_layers) { PolicySpec::full() } else { policy }
}

/// What to decode for `policies`: each once, in their order.
pub fn to_decode(policies: &[PolicySpec], num_layers: usize) -> Vec<PolicySpec> {
    let mut distinct: Vec<PolicySpec> = Vec::new();
    for policy in policies.iter().map(|&policy| decoded_as(policy, num_layers)) {
        if !distinct.contains(&policy) {
            distinct.push(policy);
        }
    }
    distinct
}

fn calm_policies(plan: &Plan) -> impl Iterator<Item = PolicySpec> {
    plan.series.iter().flat_map(|series| series.policies())
}
