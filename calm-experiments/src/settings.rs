//! Which policies a run decodes.

use calm_core::{PolicySpec, Threshold};

use crate::config::{Plan, StaticLayers};

/// The rows of the sweep: the full model, static depths, the oracle, each measure at each threshold.
pub fn sweep_policies(plan: &Plan, num_layers: usize) -> Vec<PolicySpec> {
    let depths = match &plan.static_layers {
        StaticLayers::All => (1..=num_layers).collect(),
        StaticLayers::Some(layers) => layers.clone(),
    };
    let mut policies = vec![PolicySpec::Full];
    policies.extend(depths.into_iter().map(|layers| PolicySpec::Static { layers }));
    policies.extend(plan.oracle.then_some(PolicySpec::Oracle));
    policies.extend(calm_policies(plan));
    policies
}

/// What thresholds are certified with: the full model, each measure at each threshold.
pub fn calibration_policies(plan: &Plan) -> Vec<PolicySpec> {
    std::iter::once(PolicySpec::Full).chain(calm_policies(plan)).collect()
}

/// The policy whose generations stand for those of `policy`. The threshold 1 and a static depth of all layers are the full
/// model, which is not decoded twice.
pub fn decoded_as(policy: PolicySpec, num_layers: usize) -> PolicySpec {
    match policy {
        PolicySpec::Calm { threshold, .. } if threshold.never_exits() => PolicySpec::Full,
        PolicySpec::Static { layers } if layers == num_layers => PolicySpec::Full,
        _ => policy,
    }
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

/// The threshold of a policy that has one.
pub fn threshold_of(policy: &PolicySpec) -> Option<Threshold> {
    match policy {
        PolicySpec::Calm { threshold, .. } => Some(*threshold),
        _ => None,
    }
}

fn calm_policies(plan: &Plan) -> impl Iterator<Item = PolicySpec> {
    plan.series.iter().flat_map(|series| series.policies())
}
