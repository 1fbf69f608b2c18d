//! Policies: where each token leaves the decoder.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::backbone::{Backbone, BackboneShape};
use crate::measure::{Measure, MeasureInputs, SharedMeasure};
use crate::threshold::Threshold;

/// Where each token leaves the decoder, ready to decode with.
#[derive(Clone)]
pub enum Policy {
    /// After the last layer.
    Full,
    /// After the same layer for all tokens.
    Static {
        /// Layers that run, from 1 to all.
        layers: usize,
    },
    /// After the first layer that predicts the same token as the last one. It has to run them all to know, so
    /// it is a bound for the other policies and not a faster decoding (paper section 3.3).
    Oracle,
    /// After the first layer whose confidence reaches the threshold (paper Eq. 4).
    Calm {
        /// Any confidence measure; [`Measure::resolve`] gives the built-in ones.
        measure: SharedMeasure,
        /// When it is confident enough.
        threshold: Threshold,
    },
}

impl Policy {
    /// Whether a decoder of this shape can follow the policy.
    ///
    /// # Errors
    /// [`PolicyError::StaticLayers`] for a static depth that the decoder does not have.
    pub fn check(&self, shape: &BackboneShape) -> Result<(), PolicyError> {
        match *self {
            Policy::Static { layers } if !(1..=shape.num_decoder_layers).contains(&layers) => {
                Err(PolicyError::StaticLayers { layers, available: shape.num_decoder_layers })
            }
            _ => Ok(()),
        }
    }

    /// What exit tests look at, or `None` for policies without tests, as a threshold of 1 is.
    pub fn test_inputs(&self) -> Option<MeasureInputs> {
        match self {
            Policy::Calm { measure, threshold } if !threshold.never_exits() => Some(measure.inputs()),
            _ => None,
        }
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::Full => formatter.write_str("Full"),
            Policy::Static { layers } => write!(formatter, "Static({layers})"),
            Policy::Oracle => formatter.write_str("Oracle"),
            Policy::Calm { measure, threshold } => {
                write!(formatter, "Calm({}, {threshold:?})", measure.name())
            }
        }
    }
}

/// A policy as it is written in configurations, flags and result files, with a built-in measure by name.
///
/// In JSON: `{"kind":"full"}`, `{"kind":"static","layers":2}`, `{"kind":"oracle"}` or
/// `{"kind":"calm","measure":"softmax","threshold":0.5,"decay":4.0}` where `decay` may be null or missing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "PlainPolicy", try_from = "PlainPolicy")]
pub enum PolicySpec {
    /// See [`Policy::Full`].
    Full,
    /// See [`Policy::Static`].
    Static {
        /// Layers that run, from 1.
        layers: usize,
    },
    /// See [`Policy::Oracle`].
    Oracle,
    /// See [`Policy::Calm`].
    Calm {
        /// A built-in measure.
        measure: Measure,
        /// When it is confident enough.
        threshold: Threshold,
    },
}

impl PolicySpec {
    /// The policy for this backbone, with its classifier where one is asked for.
    ///
    /// # Errors
    /// [`PolicyError`] when the backbone lacks what the policy needs.
    pub fn resolve<B: Backbone>(&self, backbone: &B) -> Result<Policy, PolicyError> {
        let shape = backbone.shape();
        let policy = match *self {
            PolicySpec::Full => Policy::Full,
            PolicySpec::Static { layers } => Policy::Static { layers },
            PolicySpec::Oracle => Policy::Oracle,
            PolicySpec::Calm { measure, threshold } => {
                let classifier = backbone.exit_classifier();
                if let Some(width) = classifier.map(|classifier| classifier.weight.len())
                    && measure == Measure::Classifier
                    && width != shape.d_model
                {
                    return Err(PolicyError::ClassifierWidth { width, d_model: shape.d_model });
                }
                Policy::Calm { measure: measure.resolve(classifier)?, threshold }
            }
        };
        policy.check(shape)?;
        Ok(policy)
    }

    /// As [`Policy::test_inputs`], without a backbone.
    pub fn test_inputs(&self) -> Option<MeasureInputs> {
        match self {
            PolicySpec::Calm { measure, threshold } if !threshold.never_exits() => Some(measure.inputs()),
            _ => None,
        }
    }

    /// A short name, unique and fit for file names: `full`, `static-3`, `oracle`, `calm-state-0.85` or, with
    /// a decay, `calm-softmax-0.85-tau4`.
    pub fn id(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for PolicySpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicySpec::Full => formatter.write_str("full"),
            PolicySpec::Static { layers } => write!(formatter, "static-{layers}"),
            PolicySpec::Oracle => formatter.write_str("oracle"),
            PolicySpec::Calm { measure, threshold } => {
                write!(formatter, "calm-{measure}-{}", threshold.value())?;
                threshold.decay().map_or(Ok(()), |tau| write!(formatter, "-tau{tau}"))
            }
        }
    }
}

impl FromStr for PolicySpec {
    type Err = PolicyError;

    /// From its [`PolicySpec::id`].
    fn from_str(id: &str) -> Result<Self, PolicyError> {
        let unknown = || {
            PolicyError::Field(format!(
                "unknown policy '{id}' (expected full, static-LAYERS, oracle, calm-MEASURE-THRESHOLD or calm-MEASURE-THRESHOLD-tauDECAY)"
            ))
        };
        let number = |text: &str| text.parse::<f64>().map_err(|_| unknown());
        let parts: Vec<&str> = id.splitn(4, '-').collect();
        Ok(match parts[..] {
            ["full"] => PolicySpec::Full,
            ["oracle"] => PolicySpec::Oracle,
            ["static", layers] => PolicySpec::Static { layers: layers.parse().map_err(|_| unknown())? },
            ["calm", measure, threshold] => PolicySpec::Calm {
                measure: measure.parse()?,
                threshold: Threshold::new(number(threshold)?, None)?,
            },
            ["calm", measure, threshold, decay] => {
                let decay = number(decay.strip_prefix("tau").ok_or_else(unknown)?)?;
                PolicySpec::Calm {
                    measure: measure.parse()?,
                    threshold: Threshold::new(number(threshold)?, Some(decay))?,
                }
            }
            _ => return Err(unknown()),
        })
    }
}

/// Why a policy cannot be followed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// The threshold is outside its range.
    #[error("threshold must be from 0 to 1, not {0}")]
    Threshold(f64),
    /// The decay is outside its range.
    #[error("decay must be a finite number not below 0, not {0}")]
    Decay(f64),
    /// There is no such measure.
    #[error("unknown confidence measure '{0}' (there are softmax, pruned, state and classifier)")]
    UnknownMeasure(String),
    /// The backbone came without a trained exit classifier.
    #[error("the classifier measure needs an exit classifier, and the model has none")]
    NoClassifier,
    /// The classifier belongs to another backbone.
    #[error("the exit classifier has {width} weights, but the model's states have {d_model} elements")]
    ClassifierWidth {
        /// Weights of the classifier.
        width: usize,
        /// Width of the residual stream.
        d_model: usize,
    },
    /// The decoder has fewer layers.
    #[error("static depth must be from 1 to the decoder's {available} layers, not {layers}")]
    StaticLayers {
        /// Layers asked for.
        layers: usize,
        /// Layers of the decoder.
        available: usize,
    },
    /// A written policy lacks a field, has one too many or an unknown kind.
    #[error("{0}")]
    Field(String),
}

/// The written form of [`PolicySpec`]. Serde's own tagged enums would let unknown fields pass.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainPolicy {
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layers: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    measure: Option<Measure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    threshold: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decay: Option<f64>,
}

impl From<PolicySpec> for PlainPolicy {
    fn from(spec: PolicySpec) -> Self {
        let plain = |kind: &str| Self { kind: kind.to_owned(), ..Self::default() };
        match spec {
            PolicySpec::Full => plain("full"),
            PolicySpec::Static { layers } => Self { layers: Some(layers), ..plain("static") },
            PolicySpec::Oracle => plain("oracle"),
            PolicySpec::Calm { measure, threshold } => Self {
                measure: Some(measure),
                threshold: Some(threshold.value()),
                decay: threshold.decay(),
                ..plain("calm")
            },
        }
    }
}

impl TryFrom<PlainPolicy> for PolicySpec {
    type Error = PolicyError;

    fn try_from(plain: PlainPolicy) -> Result<Self, Self::Error> {
        let PlainPolicy { kind, layers, measure, threshold, decay } = plain;
        let foreign: &[(&str, bool)] = match kind.as_str() {
            "full" | "oracle" => &[
                ("layers", layers.is_some()),
                ("measure", measure.is_some()),
                ("threshold", threshold.is_some()),
                ("decay", decay.is_some()),
            ],
            "static" => &[
                ("measure", measure.is_some()),
                ("threshold", threshold.is_some()),
                ("decay", decay.is_some()),
            ],
            "calm" => &[("layers", layers.is_some())],
            _ => {
                return Err(PolicyError::Field(format!(
                    "unknown policy kind '{kind}' (there are full, static, oracle and calm)"
                )));
            }
        };
        if let Some((field, _)) = foreign.iter().find(|(_, given)| *given) {
            return Err(PolicyError::Field(format!("policy '{kind}' has no field '{field}'")));
        }
        let missing = |field| PolicyError::Field(format!("policy '{kind}' needs the field '{field}'"));
        Ok(match kind.as_str() {
            "full" => PolicySpec::Full,
            "oracle" => PolicySpec::Oracle,
            "static" => match layers.ok_or_else(|| missing("layers"))? {
                0 => return Err(PolicyError::Field("policy 'static' needs at least 1 layer".to_owned())),
                layers => PolicySpec::Static { layers },
            },
            _ => PolicySpec::Calm {
                measure: measure.ok_or_else(|| missing("measure"))?,
                threshold: Threshold::new(threshold.ok_or_else(|| missing("threshold"))?, decay)?,
            },
        })
    }
}
