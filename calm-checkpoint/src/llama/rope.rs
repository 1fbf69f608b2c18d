//! The rotary position embedding: by how much a position turns each pair of numbers
//! (`modeling_rope_utils.py` of transformers 5.24).

use std::f64::consts::TAU;

/// How a network's rotary position embedding was stretched to longer texts than it was pretrained with.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All wavelengths are longer by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Wavelengths that did not fit often into the texts of the pretraining are longer by a factor, short
    /// ones are as they were, and those between are interpolated (Llama 3.1).
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths that fit so often into the texts of the pretraining, or less, are stretched in full.
        low_freq_factor: f64,
        /// Wavelengths that fit so often or more stay as they were. It is above `low_freq_factor`.
        high_freq_factor: f64,
        /// Length of the texts of the pretraining in tokens.
        original_max_position_embeddings: i64,
    },
}

/// Names the first value that makes no sense.
pub(super) fn check(theta: f64, scaling: &RopeScaling) -> Result<(), String> {
    let positive = |key: &str, value: f64| match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(format!("{key} is {value}, but must be positive")),
    };
    positive("rope_theta", theta)?;
    match *scaling {
        RopeScaling::Default => Ok(()),
        RopeScaling::Linear { factor } => positive("factor of the rope scaling", factor),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            positive("factor of the rope scaling", factor)?;
            positive("low_freq_factor of the rope scaling", low_freq_factor)?;
            positive("high_freq_factor of the rope scaling", high_freq_factor)?;
            let original = original_max_position_embeddings as f64;
            positive("original_max_position_embeddings of the rope scaling", original)?;
            match high_freq_factor > low_freq_factor {
                true => Ok(()),
                false => Err(format!(
                    "high_freq_factor of the rope scaling is {high_freq_factor}, but must be above low_freq_factor, \
                     which is {low_freq_factor}"
                )),
            }
        }
    }
}

/// Radians a token for each pair of numbers of a head: `[head_dim / 2]`.
pub(super) fn inverse_frequencies(head_dim: i64, theta: f64, scaling: &RopeScaling) -> Vec<f64> {
    let exponents = (0..head_dim / 2).map(|pair| (2 * pair) as f64 / head_dim as f64);
    let plain = exponents.map(|exponent| theta.powf(-exponent));
    plain.map(|frequency| scaled(frequency, scaling)).collect()
}

fn scaled(frequency: f64, scaling: &RopeScaling) -> f64 {
    match *scaling {
        RopeScaling::Default => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            // How often the wavelength fits into the texts of the pretraining.
            let turns = original_max_position_embeddings as f64 * frequency / TAU;
            let kept = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
            let kept = kept.clamp(0.0, 1.0);
            (1.0 - kept) * frequency / factor + kept * frequency
        }
    }
}
