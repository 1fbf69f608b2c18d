//! What the exit heads of a model say, instead of its shared head.

use super::{Confidence, FittedTo, Measure, MeasureKind, Memory, StepMeasure};
use crate::backbone::{Backbone, BackboneShape};
use crate::cost::Tests;
use crate::error::{DecodeError, PolicyError};
use crate::exit_heads::{ExitHead, ExitHeads, HeadOutput};
use crate::exits::Exits;
use crate::layer::Layer;
use crate::matrix::{Matrix, Top2};

/// `1 - H / ln V`, with the entropy H of the head's softmax in nats and V tokens: 0 for the uniform
/// distribution and 1 for certainty. It falls as H rises, the confidence of Valade's second version.
pub(super) static HEAD_ENTROPY: MeasureKind = MeasureKind {
    name: "head_entropy",
    about: "1 - H / ln V of the exit head's entropy H",
    load: |backbone| load(backbone, "head_entropy", Statistic::OfLogits(entropy)),
    flops,
    maps: None,
};

/// `1 - exp(-g)`, with the gap g between the head's two largest logits: it rises with g, the confidence
/// "breaking ties" of Valade's first version.
pub(super) static HEAD_GAP: MeasureKind = MeasureKind {
    name: "head_gap",
    about: "1 - exp(-g) of the gap g between the exit head's two largest logits",
    load: |backbone| load(backbone, "head_gap", Statistic::OfLogits(gap)),
    flops,
    maps: None,
};

/// The largest probability.
pub(super) static HEAD_MAX: MeasureKind = MeasureKind {
    name: "head_max",
    about: "the exit head's largest probability",
    load: |backbone| load(backbone, "head_max", Statistic::OfLogits(largest)),
    flops,
    maps: None,
};

/// The softmax response of the head. Where the head ends in the shared one, engines compute it without
/// logits.
pub(super) static HEAD_MARGIN: MeasureKind = MeasureKind {
    name: "head_margin",
    about: "the exit head's largest probability minus the second largest",
    load: |backbone| load(backbone, "head_margin", Statistic::Margin),
    flops,
    maps: None,
};

/// The probability that was trained with the head ([`HeadConfidence`](crate::HeadConfidence)). It means the
/// same at all layers.
pub(super) static HEAD_CONFIDENCE: MeasureKind = MeasureKind {
    name: "head_confidence",
    about: "trained probability that the exit head's token is the last layer's",
    load: load_confidence,
    flops,
    maps: None,
};

/// The level of agreement of [`HEAD_ENTROPY`].
pub(super) static LEVEL_ENTROPY: MeasureKind = MeasureKind::level(
    "level_entropy",
    "level of agreement with the last layer, from head_entropy",
    &HEAD_ENTROPY,
);

/// The level of agreement of [`HEAD_GAP`].
pub(super) static LEVEL_GAP: MeasureKind =
    MeasureKind::level("level_gap", "level of agreement with the last layer, from head_gap", &HEAD_GAP);

/// The level of agreement of [`HEAD_MAX`].
pub(super) static LEVEL_MAX: MeasureKind =
    MeasureKind::level("level_max", "level of agreement with the last layer, from head_max", &HEAD_MAX);

/// Each test is a product with a head; a token that leaves at none of them takes the shared head once more.
fn flops(shape: &BackboneShape, tests: Tests) -> f64 {
    let predicted = if tests.left_early { 0.0 } else { shape.flops.head };
    tests.count as f64 * shape.flops.exit_head + predicted
}

/// What a confidence is computed from.
#[derive(Clone, Copy)]
enum Statistic {
    /// The logits of one entry, of which the best token is known.
    OfLogits(fn(&[f32], Top2) -> f32),
    /// The margin, which needs no logits where an engine fuses it with its head.
    Margin,
    /// The probability that was trained, from the margin and the state.
    Confidence,
}

/// `1 - H / ln V` of logits.
fn entropy(logits: &[f32], top2: Top2) -> f32 {
    let best = logits[top2.token as usize];
    let (mut sum, mut weighted) = (0.0, 0.0);
    for &logit in logits {
        let below = logit - best;
        let weight = f64::from(below.exp());
        sum += weight;
        // 0 ln 0 is 0, also for a logit of minus infinity.
        weighted += if weight > 0.0 { weight * f64::from(below) } else { 0.0 };
    }
    let entropy: f64 = sum.ln() - weighted / sum;
    let most = (logits.len() as f64).ln();
    if most > 0.0 { (1.0 - entropy / most).clamp(0.0, 1.0) as f32 } else { 1.0 }
}

/// `1 - exp(-g)` of logits.
fn gap(logits: &[f32], top2: Top2) -> f32 {
    let others = logits.iter().enumerate().filter(|(token, _)| *token != top2.token as usize);
    let second = others.map(|(_, &logit)| logit).fold(f32::NEG_INFINITY, f32::max);
    -(second - logits[top2.token as usize]).exp_m1()
}

/// The largest probability of logits.
fn largest(logits: &[f32], top2: Top2) -> f32 {
    let best = logits[top2.token as usize];
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - best).exp())).sum();
    (1.0 / sum) as f32
}

struct Heads {
    name: &'static str,
    heads: ExitHeads,
    statistic: Statistic,
}

fn load(
    backbone: &dyn Backbone,
    name: &'static str,
    statistic: Statistic,
) -> Result<Box<dyn Measure>, PolicyError> {
    let needs = "needs exit heads, which `calm train --heads` trains, and the model has none".to_owned();
    let heads = backbone.exit_heads().ok_or(PolicyError::Measure { measure: name, reason: needs })?;
    Ok(Box::new(Heads { name, heads: heads.clone(), statistic }))
}

fn load_confidence(backbone: &dyn Backbone) -> Result<Box<dyn Measure>, PolicyError> {
    let measure = load(backbone, HEAD_CONFIDENCE.name, Statistic::Confidence)?;
    let has_one = |heads: &ExitHeads| heads.iter().all(|(layer, _)| heads.confidence(layer).is_some());
    match backbone.exit_heads().is_some_and(has_one) {
        true => Ok(measure),
        false => Err(PolicyError::Measure {
            measure: HEAD_CONFIDENCE.name,
            reason: "needs exit heads with a trained confidence, and the model's have none".to_owned(),
        }),
    }
}

/// What the head of a layer says of its entries, given their states; `None` where there is no head.
pub(crate) fn top2(
    heads: &ExitHeads,
    layer: &mut Layer<'_>,
    states: &Matrix,
) -> Result<Option<Vec<Top2>>, DecodeError> {
    let Some(head) = heads.get(layer.number()) else { return Ok(None) };
    let mut top2 = match head.apply(states) {
        HeadOutput::States(states) => layer.top2_of(&states)?,
        HeadOutput::Logits(logits) => best(layer, &logits)?,
    };
    top2.iter_mut().for_each(|top2| top2.token = heads.token(top2.token));
    Ok(Some(top2))
}

impl Measure for Heads {
    fn begin_step(&self) -> Box<dyn StepMeasure + '_> {
        Box::new(self)
    }

    fn memory(&self) -> Memory {
        Memory::Nothing
    }

    fn layers(&self) -> Option<Exits> {
        Some(self.heads.layers())
    }

    fn fitted_to(&self) -> Option<&FittedTo> {
        Some(self.heads.fitted_to())
    }
}

impl StepMeasure for &Heads {
    fn confidence(&mut self, layer: &mut Layer<'_>) -> Result<Vec<Confidence>, DecodeError> {
        let Heads { name, heads, statistic } = self;
        let number = layer.number();
        let missing =
            || PolicyError::Measure { measure: name, reason: format!("has no head for layer {number}") };
        let states = layer.hidden()?;
        if let Statistic::OfLogits(value) = statistic {
            let logits = logits(layer, heads.get(number).ok_or_else(missing)?, &states)?;
            let top2 = best(layer, &logits)?;
            let confidence = |(logits, top2): (&[f32], Top2)| Confidence {
                value: value(logits, top2),
                token: Some(heads.token(top2.token)),
            };
            return Ok(logits.rows().zip(top2).map(confidence).collect());
        }
        let top2 = top2(heads, layer, &states)?.ok_or_else(missing)?;
        let Some(trained) = heads.confidence(number).filter(|_| matches!(statistic, Statistic::Confidence))
        else {
            return Ok(top2.into_iter().map(Confidence::from).collect());
        };
        let confidence = |(state, top2): (&[f32], Top2)| Confidence {
            value: trained.of(state, top2),
            token: Some(top2.token),
        };
        Ok(states.rows().zip(top2).map(confidence).collect())
    }
}

fn logits(layer: &mut Layer<'_>, head: &ExitHead, states: &Matrix) -> Result<Matrix, DecodeError> {
    match head.apply(states) {
        HeadOutput::States(states) => layer.logits_of(&states),
        HeadOutput::Logits(logits) => Ok(logits),
    }
}

/// The best columns of logits `[entries, tokens]`, which are finite numbers.
fn best(layer: &mut Layer<'_>, logits: &Matrix) -> Result<Vec<Top2>, DecodeError> {
    let top2: Vec<Top2> = logits.rows().map(Top2::from_logits).collect();
    layer.check(top2.iter())?;
    Ok(top2)
}
