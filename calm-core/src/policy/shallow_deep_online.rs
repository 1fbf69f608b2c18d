use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    Decision, DeepToken, DeepTokens, Deferral, Parameter, Parameters, Policy, PolicyKind, Skipped, StepPolicy,
};
use crate::backbone::{Backbone, BackboneShape, Entry};
use crate::beta_mixture::{BetaMixture, published_threshold};
use crate::error::{DecodeError, PolicyError};
use crate::exits::Exits;
use crate::layer::Layer;
use crate::matrix::Top2;
use crate::monotone::Observation;

pub(super) static SHALLOW_DEEP_BETA: PolicyKind = PolicyKind {
    name: "shallow-deep-beta",
    about: "the same with a margin that it chooses as it decodes, by the probability of agreement",
    make: |parameters, backbone| make(parameters, backbone, Estimator::Intended),
    ..SHALLOW_DEEP_PUBLISHED
};

pub(super) static SHALLOW_DEEP_PUBLISHED: PolicyKind = PolicyKind {
    name: "shallow-deep-published",
    about: "the same as the released code of FREE chooses it",
    parameters: &[Parameter::Layers, Parameter::Threshold, Parameter::Cap],
    make: |parameters, backbone| make(parameters, backbone, Estimator::Published),
    is_full: |_, _| false,
    head_flops,
    defers: true,
};

/// The margin above which tokens leave until there is anything to learn from, as in FREE's scripts.
const FIRST_THRESHOLD: f64 = 0.9;
/// Batches that it learns from at most, as in FREE's code for T5 (sequences there, which are decoded alone).
const MOST_UPDATES: usize = 300;

/// FREE's adaptive threshold: whenever the deep layers run for tokens that had left, it is known whether they
/// agree. A mixture of two Beta distributions is fitted to the margins of those that do and those that do
/// not, and tokens leave at margins where the posterior probability of agreeing exceeds the threshold of the
/// policy's id, zeta in the paper.
///
/// Nothing is guaranteed: what it learns from are the outputs that it is to be judged by, those that never
/// reach the deep layers are not seen, and no level of quality is aimed at. An output depends on the batches
/// before it.
struct ShallowDeepOnline {
    layers: usize,
    zeta: f64,
    cap: Option<usize>,
    estimator: Estimator,
    learned: Mutex<Learned>,
}

/// How a threshold is made of what was seen.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Estimator {
    /// As the paper describes it.
    Intended,
    /// As the released code computes it, its mistakes included.
    Published,
}

struct Learned {
    threshold: f64,
    seen: Vec<Observation>,
    /// How many of these the threshold was made of.
    fitted_to: usize,
    updates: usize,
}

fn make(
    parameters: &Parameters,
    backbone: &dyn Backbone,
    estimator: Estimator,
) -> Result<Box<dyn Policy>, PolicyError> {
    let (Some(layers), Some(threshold)) = (parameters.layers, parameters.threshold) else {
        return Err(PolicyError::Form("an adaptive threshold needs layers and a probability".to_owned()));
    };
    if threshold.decay().is_some() {
        return Err(PolicyError::Form("an adaptive threshold has no decay".to_owned()));
    }
    Exits::new(&[layers])?.check(backbone.shape().num_layers)?;
    let learned = Learned { threshold: FIRST_THRESHOLD, seen: Vec::new(), fitted_to: 0, updates: 0 };
    let (zeta, cap) = (threshold.value(), parameters.cap);
    Ok(Box::new(ShallowDeepOnline { layers, zeta, cap, estimator, learned: Mutex::new(learned) }))
}

/// A test for every token, and the head again for the last layer's token, of those that left too.
fn head_flops(_: &Parameters, shape: &BackboneShape, _: usize) -> f64 {
    2.0 * shape.flops.head
}

impl ShallowDeepOnline {
    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Policy for ShallowDeepOnline {
    fn skipped(&self) -> Skipped {
        Skipped::Deferred(Deferral { cap: self.cap, deep_tokens: DeepTokens::Heard })
    }

    fn learns_from_outputs(&self) -> bool {
        true
    }

    fn begin_batch(&self) {
        let mut learned = self.learned();
        let Learned { threshold, seen, fitted_to, updates } = &mut *learned;
        // The intended form iterates: it waits until a quarter more is known.
        let enough = match self.estimator {
            Estimator::Published => *fitted_to + 1,
            Estimator::Intended => *fitted_to + *fitted_to / 4 + 1,
        };
        if seen.len() < enough || *updates >= MOST_UPDATES {
            return;
        }
        let observations = seen.iter().copied();
        *threshold = match self.estimator {
            Estimator::Published => {
                published_threshold(BetaMixture::published(observations).as_ref(), self.zeta)
            }
            Estimator::Intended => BetaMixture::intended(observations)
                .map_or(FIRST_THRESHOLD, |mixture| mixture.threshold(self.zeta)),
        };
        (*fitted_to, *updates) = (seen.len(), *updates + 1);
    }

    fn begin_step(&self, _: usize) -> Box<dyn StepPolicy + '_> {
        Box::new(Step { policy: self, threshold: self.learned().threshold, stayed: Vec::new() })
    }

    fn remark(&self) -> Option<String> {
        let Learned { threshold, fitted_to, .. } = *self.learned();
        Some(format!("tokens leave at margins above {threshold:.3}, which is fitted to {fitted_to} tokens"))
    }
}

struct Step<'a> {
    policy: &'a ShallowDeepOnline,
    threshold: f64,
    /// What the shallow layers said of entries that stayed.
    stayed: Vec<(Entry, Top2)>,
}

impl StepPolicy for Step<'_> {
    fn decide(&mut self, layer: &mut Layer<'_>, decisions: &mut [Decision]) -> Result<(), DecodeError> {
        if layer.number() != self.policy.layers {
            return Ok(());
        }
        for ((&entry, top2), decision) in layer.entries().iter().zip(layer.top2()?).zip(decisions) {
            decision.confidence = Some(top2.margin);
            // Above it, as in the released code: a threshold of 1 lets none leave.
            if f64::from(top2.margin) > self.threshold {
                (decision.exit_layer, decision.token) = (Some(layer.number()), Some(top2.token));
            } else {
                self.stayed.push((entry, top2));
            }
        }
        Ok(())
    }

    fn hear(&mut self, deep: &[DeepToken]) {
        let mut learned = self.policy.learned();
        if learned.updates >= MOST_UPDATES {
            return;
        }
        for of_row in deep.chunk_by(|a, b| a.entry.row == b.entry.row) {
            // The released code takes nothing from a token that nobody has waited for.
            if self.policy.estimator == Estimator::Published && of_row.len() == 1 {
                continue;
            }
            for DeepToken { entry, token, left } in of_row {
                let said = match left {
                    Some(left) => left.confidence.map(|margin| (margin, left.token)),
                    None => self
                        .stayed
                        .iter()
                        .find(|(stayed, _)| stayed == entry)
                        .map(|(_, top2)| (top2.margin, top2.token)),
                };
                let observation = said.map(|(margin, shallow)| Observation {
                    x: margin,
                    y: f32::from(u8::from(shallow == *token)),
                });
                learned.seen.extend(observation);
            }
        }
    }
}
