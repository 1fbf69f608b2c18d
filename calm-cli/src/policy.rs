//! The flags that choose a policy.

use anyhow::bail;
use calm_core::{
    Exits, MEASURES, MeasureKind, Named, POLICIES, Parameter, Parameters, PolicySpec, Threshold,
};

/// A policy by its id, or by the name of its kind with a flag for each parameter.
#[derive(clap::Args)]
pub(crate) struct PolicyArguments {
    #[arg(long, value_name = "P", default_value = "full", help = "Where each token stops", long_help = policy_help())]
    policy: String,
    /// Layers that every token takes (static)
    #[arg(long, value_name = "K")]
    static_layers: Option<usize>,
    #[arg(long, value_name = "M", help = measure_help())]
    measure: Option<&'static MeasureKind>,
    /// A token exits once its confidence reaches this, from 0 to 1; at 1 none does (calm)
    #[arg(long, value_name = "T")]
    threshold: Option<f64>,
    /// Decay tau of the threshold along the output; constant if not given (calm)
    #[arg(long, value_name = "TAU")]
    decay: Option<f64>,
    /// Layers after which is tested, such as 2,4,6; all but the last if not given (calm)
    #[arg(long, value_name = "K,K")]
    exits: Option<Exits>,
}

/// What the table of policies says of itself.
pub(crate) fn policy_help() -> String {
    let policies = POLICIES.all();
    let width = policies.iter().map(|policy| policy.form().len()).max().unwrap_or(0);
    let lines: Vec<String> =
        policies.iter().map(|policy| format!("  {:width$}  {}", policy.form(), policy.about)).collect();
    format!(
        "Where each token stops:\n{}\nwhere MEASURE is\n{}",
        lines.join("\n"),
        MEASURES.help().lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    )
}

/// The names of all measures.
pub(crate) fn measure_help() -> String {
    let names: Vec<&str> = MEASURES.all().iter().map(|measure| measure.name()).collect();
    format!("Confidence measure: {}", names.join(", "))
}

impl PolicyArguments {
    /// The policy that the flags describe.
    pub(crate) fn spec(&self) -> anyhow::Result<PolicySpec> {
        let Ok(kind) = POLICIES.get(&self.policy) else {
            let flags = [
                ("--static-layers", self.static_layers.is_some()),
                ("--measure", self.measure.is_some()),
                ("--threshold", self.threshold.is_some()),
                ("--decay", self.decay.is_some()),
                ("--exits", self.exits.is_some()),
            ];
            if let Some((flag, _)) = flags.into_iter().find(|(_, given)| *given) {
                bail!("{flag} has no meaning beside the policy {}, which has its parameters", self.policy);
            }
            return Ok(self.policy.parse()?);
        };
        let threshold = match (self.threshold, self.decay) {
            (Some(threshold), decay) => Some(Threshold::new(threshold, decay)?),
            (None, Some(_)) => bail!("--decay needs --threshold"),
            (None, None) => None,
        };
        let (layers, measure, exits) = (self.static_layers, self.measure, self.exits);
        let mut parameters = Parameters { layers, measure, threshold, exits, ..Parameters::default() };
        if kind.parameters.contains(&Parameter::Measure) && parameters.measure.is_none() {
            parameters.measure = Some(MEASURES.get("softmax")?);
        }
        Ok(PolicySpec::new(kind.name, parameters)?)
    }
}
