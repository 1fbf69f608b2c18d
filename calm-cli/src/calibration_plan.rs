//! `calm calibrate --plan`: how many examples a tolerance needs.

use std::io::{self, Write};

use calm_calibrate::{CalibrationOptions, LossKind, LossSum, PValue};

/// Expected losses that are looked at, as shares of delta.
const SHARES: [f64; 4] = [0.0, 0.25, 0.5, 0.75];

/// More examples than this are not looked for.
const MOST: usize = 1_000_000;

/// Writes how many examples certify a threshold with such a mean loss.
pub(crate) fn write_plan(out: &mut dyn Write, options: &CalibrationOptions) -> io::Result<()> {
    let CalibrationOptions { delta, epsilon, loss_kind, .. } = options;
    // What betting needs depends on how much losses vary.
    let p_value = match options.p_value {
        p_value if p_value.needs_only_the_sum() => p_value,
        _ if *loss_kind == LossKind::Binary => PValue::Binomial,
        _ => PValue::HoeffdingBentkus,
    };
    writeln!(out, "{:>9}  {:>8}", "mean loss", "examples")?;
    for share in SHARES {
        let mean = share * delta.get();
        let examples = examples_needed(mean, p_value, options);
        let examples = examples.map_or_else(|| format!("> {MOST}"), |examples| examples.to_string());
        writeln!(out, "{mean:>9.4}  {examples:>8}")?;
    }
    writeln!(out, "delta {delta}, epsilon {epsilon}, {loss_kind} losses, {p_value}")?;
    if p_value != options.p_value {
        writeln!(out, "{} needs fewer where losses vary little", options.p_value)?;
    }
    Ok(())
}

/// The least number of examples with this mean loss whose p-value is at most epsilon.
fn examples_needed(mean: f64, p_value: PValue, options: &CalibrationOptions) -> Option<usize> {
    let suffice = |examples: usize| {
        let sum = mean * examples as f64;
        let sum = if options.loss_kind == LossKind::Binary { sum.ceil() } else { sum };
        let losses = LossSum::new(sum, examples, options.loss_kind).ok()?;
        Some(p_value.of_sum(losses, options.delta).ok()?.rejected_at(options.epsilon))
    };
    // P-values do not always fall with the number, since some of them round sums up.
    for examples in 1..=MOST {
        if suffice(examples)? {
            return Some(examples);
        }
    }
    None
}
