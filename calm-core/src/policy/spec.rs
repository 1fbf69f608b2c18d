//! The written form of a policy, the same in flags, configurations, files and tables.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{POLICIES, Policy, PolicyKind};
use crate::backbone::{Backbone, BackboneShape};
use crate::error::PolicyError;
use crate::exits::Exits;
use crate::measure::{MEASURES, MeasureKind};
use crate::threshold::Threshold;

/// A kind of policy with its parameters. It is written as its id, short and fit for file names: `full`,
/// `static-3`, `oracle`, `calm-state-0.85`, with a decay `calm-softmax-0.85-tau4`, with tests after some
/// layers alone `calm-state-0.85-exits2.4`; `shallow-deep-4-0.9`, with at most 8 tokens that wait
/// `shallow-deep-4-0.9-cap8`; `self-speculative-draft3.4`; `perturbed-layer-5`.
#[derive(Clone, Copy)]
pub struct PolicySpec {
    kind: &'static PolicyKind,
    parameters: Parameters,
}

/// The parameters of a policy, `None` where its kind has no such parameter.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Parameters {
    /// Number of layers, at least 1.
    pub layers: Option<usize>,
    /// Confidence measure. A kind that may leave it out takes the softmax response.
    pub measure: Option<&'static MeasureKind>,
    /// Exit threshold, with its decay.
    pub threshold: Option<Threshold>,
    /// Layers after which is tested; `None` for all but the last also where a kind has this parameter.
    pub exits: Option<Exits>,
    /// Tokens of a row whose upper layers wait, at most; at least 1, and `None` for any number.
    pub cap: Option<usize>,
    /// How tokens are drafted; `None` where a policy finds out what is fastest.
    pub draft: Option<Draft>,
    /// Position in the output, from 0.
    pub position: Option<usize>,
}

/// How tokens are drafted, written as in `draft3.4`: with 3 layers, 4 at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draft {
    /// Layers that run for a draft, below the last.
    pub layers: usize,
    /// Tokens that are drafted before they are verified; at least 1.
    pub length: usize,
}

impl fmt::Display for Draft {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.layers, self.length)
    }
}

/// A parameter that a kind of policy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    /// [`Parameters::layers`], written as a number.
    Layers,
    /// [`Parameters::measure`], written as its name.
    Measure,
    /// [`Parameters::threshold`], written as a number, with a decay as in `0.9-tau4`.
    Threshold,
    /// [`Parameters::exits`], written as in `exits2.4`. It may be left out.
    Exits,
    /// [`Parameters::measure`], left out if it is the softmax response.
    MeasureOrSoftmax,
    /// [`Parameters::cap`], written as in `cap8`. It may be left out.
    Cap,
    /// [`Parameters::draft`], written as in `draft3.4`. It may be left out.
    Draft,
    /// [`Parameters::position`], written as a number.
    Position,
}

/// The measure of a policy that names none.
const DEFAULT_MEASURE: &MeasureKind = &crate::measure::SOFTMAX;

impl Parameter {
    const ALL: [Self; 8] = [
        Self::Layers,
        Self::Measure,
        Self::Threshold,
        Self::Exits,
        Self::MeasureOrSoftmax,
        Self::Cap,
        Self::Draft,
        Self::Position,
    ];

    /// The name in messages.
    fn name(self) -> &'static str {
        match self {
            Self::Layers => "number of layers",
            Self::Measure | Self::MeasureOrSoftmax => "measure",
            Self::Threshold => "threshold",
            Self::Exits => "set of exits",
            Self::Cap => "cap",
            Self::Draft => "draft",
            Self::Position => "position",
        }
    }

    /// How it stands in the form of an id.
    fn form(self) -> &'static str {
        match self {
            Self::Layers => "-LAYERS",
            Self::Measure => "-MEASURE",
            Self::Threshold => "-THRESHOLD[-tauDECAY]",
            Self::Exits => "[-exitsLAYER.LAYER]",
            Self::MeasureOrSoftmax => "[-MEASURE]",
            Self::Cap => "[-capTOKENS]",
            Self::Draft => "[-draftLAYERS.TOKENS]",
            Self::Position => "-POSITION",
        }
    }

    fn is_in(self, parameters: &Parameters) -> bool {
        match self {
            Self::Layers => parameters.layers.is_some(),
            Self::Measure | Self::MeasureOrSoftmax => parameters.measure.is_some(),
            Self::Threshold => parameters.threshold.is_some(),
            Self::Exits => parameters.exits.is_some(),
            Self::Cap => parameters.cap.is_some(),
            Self::Draft => parameters.draft.is_some(),
            Self::Position => parameters.position.is_some(),
        }
    }

    /// Whether an id may leave it out.
    fn is_optional(self) -> bool {
        self.form().starts_with('[')
    }
}

impl PolicyKind {
    /// The form of its ids, such as `calm-MEASURE-THRESHOLD[-tauDECAY][-exitsLAYER.LAYER]`.
    pub fn form(&self) -> String {
        self.name.to_owned() + &self.parameters.iter().map(|parameter| parameter.form()).collect::<String>()
    }
}

impl PolicySpec {
    /// A policy of the kind of this name.
    ///
    /// # Errors
    /// There is no such kind, it needs another parameter, or has one too many.
    pub fn new(kind: &str, mut parameters: Parameters) -> Result<Self, PolicyError> {
        let kind = POLICIES.get(kind)?;
        if kind.parameters.contains(&Parameter::MeasureOrSoftmax) {
            parameters.measure.get_or_insert(DEFAULT_MEASURE);
        }
        for parameter in Parameter::ALL {
            let (name, is_given) = (parameter.name(), parameter.is_in(&parameters));
            match kind.parameters.iter().any(|own| own.name() == name) {
                true if !is_given && kind.parameters.contains(&parameter) && !parameter.is_optional() => {
                    let form = kind.form();
                    let message = format!("the policy {} needs a {name}: its form is {form}", kind.name);
                    return Err(PolicyError::Form(message));
                }
                false if is_given => {
                    return Err(PolicyError::Form(format!("the policy {} has no {name}", kind.name)));
                }
                _ => {}
            }
        }
        if parameters.layers == Some(0) {
            return Err(PolicyError::Form(format!("the policy {} needs at least 1 layer", kind.name)));
        }
        if parameters.cap == Some(0) {
            return Err(PolicyError::Form("the cap of tokens that wait must be at least 1".to_owned()));
        }
        if parameters.draft.is_some_and(|draft| draft.layers == 0 || draft.length == 0) {
            let message = "a draft needs at least 1 layer and at least 1 token, as in draft3.4";
            return Err(PolicyError::Form(message.to_owned()));
        }
        Ok(Self { kind, parameters })
    }

    /// All layers for every token.
    pub fn full() -> Self {
        Self { kind: &super::full::FULL, parameters: Parameters::default() }
    }

    /// The same number of layers for every token, at least 1.
    pub fn fixed(layers: usize) -> Self {
        let parameters = Parameters { layers: Some(layers), ..Parameters::default() };
        Self { kind: &super::static_depth::STATIC, parameters }
    }

    /// The first layer that agrees with the last one.
    pub fn oracle() -> Self {
        Self { kind: &super::oracle::ORACLE, parameters: Parameters::default() }
    }

    /// The first layer whose confidence reaches the threshold.
    pub fn calm(measure: &'static MeasureKind, threshold: Threshold) -> Self {
        let parameters =
            Parameters { measure: Some(measure), threshold: Some(threshold), ..Parameters::default() };
        Self { kind: &super::calm::CALM, parameters }
    }

    /// The id with a star in place of the threshold, for all policies that differ in it alone, such as
    /// `calm-softmax-*-tau4`; the id itself where there is none.
    pub fn family(&self) -> String {
        struct Family<'a>(&'a PolicySpec);
        impl fmt::Display for Family<'_> {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.write(formatter, Some("*"))
            }
        }
        Family(self).to_string()
    }

    /// The policy of a family with this number in place of the star: the threshold, or the number of layers
    /// of `static-*`.
    ///
    /// # Errors
    /// The text is no id with one star for one of its numbers, or the number is out of its range.
    pub fn of_family(family: &str, number: f64) -> Result<Self, PolicyError> {
        if family.matches('*').count() != 1 {
            let message = format!("`{family}` is no policy with a * for its threshold, as in calm-softmax-*");
            return Err(PolicyError::Form(message));
        }
        // A minus would end the part of the id before it.
        if number.is_sign_negative() {
            return Err(PolicyError::Threshold(number));
        }
        family.replace('*', &number.to_string()).parse()
    }

    /// The same policy with tests after these layers alone, for a kind that tests.
    #[must_use]
    pub fn with_exits(mut self, exits: Option<Exits>) -> Self {
        self.parameters.exits = exits.filter(|_| self.kind.parameters.contains(&Parameter::Exits));
        self
    }

    /// What kind of policy this is.
    pub fn kind(&self) -> &'static PolicyKind {
        self.kind
    }

    /// The parameters of the policy.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The policy for this backbone.
    ///
    /// # Errors
    /// [`PolicyError`] when the backbone lacks what the policy needs.
    pub fn make(&self, backbone: &dyn Backbone) -> Result<Box<dyn Policy>, PolicyError> {
        (self.kind.make)(&self.parameters, backbone)
    }

    /// Whether a decoder of so many layers gives the full model's outputs at the full model's cost.
    pub fn is_full(&self, num_layers: usize) -> bool {
        (self.kind.is_full)(&self.parameters, num_layers)
    }

    /// FLOPs of all tests of a token that left after `exit_layer`, and of predicting it.
    pub fn head_flops(&self, shape: &BackboneShape, exit_layer: usize) -> f64 {
        (self.kind.head_flops)(&self.parameters, shape, exit_layer)
    }

    /// Reads the parameters behind the name of a kind.
    fn parse_parameters<'a>(kind: &PolicyKind, mut rest: Option<&'a str>) -> Result<Parameters, PolicyError> {
        fn part<'a>(rest: &mut Option<&'a str>) -> Option<&'a str> {
            let text = (*rest)?;
            let (part, after) =
                text.split_once('-').map_or((text, None), |(part, after)| (part, Some(after)));
            *rest = after;
            Some(part)
        }
        let malformed = || PolicyError::Form(format!("a policy {} is written {}", kind.name, kind.form()));
        let number =
            |text: Option<&str>| text.and_then(|text| text.parse::<f64>().ok()).ok_or_else(malformed);
        // What stands behind a tag such as `exits`, which may be left out at the end.
        let tagged = |rest: &mut Option<&'a str>, tag: &str| match part(rest) {
            None => Ok(None),
            Some(part) => part.strip_prefix(tag).map(Some).ok_or_else(malformed),
        };
        let mut parameters = Parameters::default();
        for parameter in kind.parameters {
            match parameter {
                Parameter::Layers => {
                    let layers = part(&mut rest).and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
                    parameters.layers = Some(layers);
                }
                Parameter::Measure | Parameter::MeasureOrSoftmax => {
                    // A threshold begins with a digit.
                    let is_named =
                        rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_lowercase()));
                    if is_named || *parameter == Parameter::Measure {
                        let (measure, behind) = MEASURES.split(rest.ok_or_else(malformed)?)?;
                        (parameters.measure, rest) = (Some(measure), behind);
                    }
                }
                Parameter::Threshold => {
                    let value = number(part(&mut rest))?;
                    let decay = match rest.and_then(|rest| rest.strip_prefix("tau")) {
                        Some(_) => {
                            let tau = part(&mut rest).and_then(|part| part.strip_prefix("tau"));
                            Some(number(tau)?)
                        }
                        None => None,
                    };
                    parameters.threshold = Some(Threshold::new(value, decay)?);
                }
                Parameter::Exits => {
                    parameters.exits = tagged(&mut rest, "exits")?.map(str::parse).transpose()?;
                }
                Parameter::Cap => {
                    let cap = tagged(&mut rest, "cap")?.map(str::parse);
                    parameters.cap = cap.transpose().map_err(|_| malformed())?;
                }
                Parameter::Draft => {
                    let draft = |text: &str| {
                        let (layers, length) = text.split_once('.')?;
                        Some(Draft { layers: layers.parse().ok()?, length: length.parse().ok()? })
                    };
                    let text = tagged(&mut rest, "draft")?;
                    parameters.draft = text.map(|text| draft(text).ok_or_else(malformed)).transpose()?;
                }
                Parameter::Position => {
                    let position = part(&mut rest).and_then(|text| text.parse().ok());
                    parameters.position = Some(position.ok_or_else(malformed)?);
                }
            }
        }
        if rest.is_some() { Err(malformed()) } else { Ok(parameters) }
    }
}

impl PartialEq for PolicySpec {
    fn eq(&self, other: &Self) -> bool {
        self.kind.name == other.kind.name && self.parameters == other.parameters
    }
}

impl PolicySpec {
    /// Writes the id, with other text in place of the threshold if there is any.
    fn write(&self, formatter: &mut fmt::Formatter<'_>, threshold_as: Option<&str>) -> fmt::Result {
        formatter.write_str(self.kind.name)?;
        let Parameters { layers, measure, threshold, exits, cap, draft, position } = self.parameters;
        for parameter in self.kind.parameters {
            match parameter {
                Parameter::Layers => write!(formatter, "-{}", layers.unwrap_or_default())?,
                Parameter::Measure => write!(formatter, "-{}", measure.map_or("", |measure| measure.name))?,
                Parameter::Threshold => {
                    let Some(threshold) = threshold else { continue };
                    match threshold_as {
                        Some(text) => write!(formatter, "-{text}")?,
                        None => write!(formatter, "-{}", threshold.value())?,
                    }
                    threshold.decay().map_or(Ok(()), |tau| write!(formatter, "-tau{tau}"))?;
                }
                Parameter::Exits => exits.map_or(Ok(()), |exits| write!(formatter, "-exits{exits}"))?,
                Parameter::MeasureOrSoftmax => {
                    let named = measure.filter(|measure| *measure != DEFAULT_MEASURE);
                    named.map_or(Ok(()), |measure| write!(formatter, "-{}", measure.name))?;
                }
                Parameter::Cap => cap.map_or(Ok(()), |cap| write!(formatter, "-cap{cap}"))?,
                Parameter::Position => write!(formatter, "-{}", position.unwrap_or_default())?,
                Parameter::Draft => draft.map_or(Ok(()), |draft| write!(formatter, "-draft{draft}"))?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for PolicySpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(formatter, None)
    }
}

impl fmt::Debug for PolicySpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

impl FromStr for PolicySpec {
    type Err = PolicyError;

    fn from_str(id: &str) -> Result<Self, PolicyError> {
        let (kind, rest) = POLICIES.split(id)?;
        Self::new(kind.name, Self::parse_parameters(kind, rest)?)
    }
}

impl Serialize for PolicySpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PolicySpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
