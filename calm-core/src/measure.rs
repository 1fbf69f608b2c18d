//! Confidence measures: what is known after a layer, mapped to a number that is compared with the threshold.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backbone::{ExitClassifier, Top2};
use crate::policy::PolicyError;

/// What a measure sees of one row after one layer. Inputs it did not ask for are empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct LayerView<'a> {
    /// The layer that just ran, from 1.
    pub layer: usize,
    /// Decoding position, from 0.
    pub position: usize,
    /// Residual state after this layer, before any final norm; `d_model` long.
    pub hidden: &'a [f32],
    /// Residual state after the layer before; the embedding at layer 1.
    pub previous_hidden: &'a [f32],
    /// Logits of the shared head on this layer's state.
    pub logits: &'a [f32],
    /// Best token and its probability margin over the second best, which engines compute faster than logits. Among all tokens, or
    /// among those that [`MeasureInputs::pruned_top2`] leaves.
    pub top2: Option<Top2>,
}

/// What a measure wants to see. The loop asks the engine for nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MeasureInputs {
    /// [`LayerView::hidden`]
    pub hidden: bool,
    /// [`LayerView::previous_hidden`]
    pub previous_hidden: bool,
    /// [`LayerView::logits`], a product with the whole vocabulary
    pub logits: bool,
    /// [`LayerView::top2`], a product with the whole vocabulary
    pub top2: bool,
    /// [`LayerView::top2`] of the [`PRUNED_TOKENS`] tokens that were best after the first layer
    pub pruned_top2: bool,
}

/// Tokens that compete where the vocabulary is pruned.
pub const PRUNED_TOKENS: usize = 64;

/// A confidence measure.
pub trait ConfidenceMeasure {
    /// Name in reports, unique among the measures of a run.
    fn name(&self) -> &str;

    /// What [`confidence`](Self::confidence) looks at.
    fn inputs(&self) -> MeasureInputs;

    /// Confidence of one row after one layer. It leaves there if it reaches the threshold, from 0 to 1.
    fn confidence(&self, view: &LayerView<'_>) -> f32;
}

/// A confidence measure that policies can share between threads.
pub type SharedMeasure = Arc<dyn ConfidenceMeasure + Send + Sync>;

/// The measures of the paper, section 3.5, and a cheaper relative of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// Softmax response: probability of the best token minus that of the second best. (The paper's released
    /// code has the largest probability as default; its text has the difference.)
    Softmax,
    /// Softmax response over a pruned vocabulary: only the [`PRUNED_TOKENS`] tokens that are best after the first layer compete in the
    /// softmax of all layers, and for the output of a token that leaves early (dynamic vocabulary pruning, Vincenti et al. 2024). One
    /// product with the whole vocabulary a token instead of one a layer.
    Pruned,
    /// Hidden-state saturation: the cosine between the states after this layer and the one before. Layer 1
    /// has none before it and a confidence of 0. Negative cosines are not clamped: they stay below every threshold.
    State,
    /// The trained [`ExitClassifier`]: `sigmoid(w h + b)`.
    Classifier,
}

impl Measure {
    /// All built-in measures.
    pub const ALL: [Measure; 4] = [Measure::Softmax, Measure::Pruned, Measure::State, Measure::Classifier];

    /// The name in configurations, flags and tables.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Softmax => "softmax",
            Measure::Pruned => "pruned",
            Measure::State => "state",
            Measure::Classifier => "classifier",
        }
    }

    /// What the measure looks at.
    pub fn inputs(self) -> MeasureInputs {
        let nothing = MeasureInputs::default();
        match self {
            Measure::Softmax => MeasureInputs { top2: true, ..nothing },
            Measure::Pruned => MeasureInputs { pruned_top2: true, ..nothing },
            Measure::State => MeasureInputs { hidden: true, previous_hidden: true, ..nothing },
            Measure::Classifier => MeasureInputs { hidden: true, ..nothing },
        }
    }

    /// The measure itself, given the classifier that came with the backbone.
    ///
    /// # Errors
    /// [`PolicyError::NoClassifier`] for the classifier measure without one.
    pub fn resolve(self, classifier: Option<&ExitClassifier>) -> Result<SharedMeasure, PolicyError> {
        Ok(match self {
            Measure::Softmax | Measure::Pruned => Arc::new(SoftmaxResponse(self)),
            Measure::State => Arc::new(StateSaturation),
            Measure::Classifier => Arc::new(classifier.ok_or(PolicyError::NoClassifier)?.clone()),
        })
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Measure {
    type Err = PolicyError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Measure::ALL
            .into_iter()
            .find(|measure| measure.name() == name)
            .ok_or_else(|| PolicyError::UnknownMeasure(name.to_owned()))
    }
}

/// Over whichever vocabulary the measure asks for.
struct SoftmaxResponse(Measure);

impl ConfidenceMeasure for SoftmaxResponse {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn inputs(&self) -> MeasureInputs {
        self.0.inputs()
    }

    fn confidence(&self, view: &LayerView<'_>) -> f32 {
        view.top2.map_or(0.0, |top2| top2.margin)
    }
}

struct StateSaturation;

impl ConfidenceMeasure for StateSaturation {
    fn name(&self) -> &str {
        Measure::State.name()
    }

    fn inputs(&self) -> MeasureInputs {
        Measure::State.inputs()
    }

    fn confidence(&self, view: &LayerView<'_>) -> f32 {
        if view.layer == 1 { 0.0 } else { cosine(view.hidden, view.previous_hidden) }
    }
}

impl ConfidenceMeasure for ExitClassifier {
    fn name(&self) -> &str {
        Measure::Classifier.name()
    }

    fn inputs(&self) -> MeasureInputs {
        Measure::Classifier.inputs()
    }

    fn confidence(&self, view: &LayerView<'_>) -> f32 {
        sigmoid(dot(&self.weight, view.hidden) + f64::from(self.bias)) as f32
    }
}

/// In several sums, since a single one makes every addition wait for the one before.
fn dot(left: &[f32], right: &[f32]) -> f64 {
    const SUMS: usize = 8;
    let product = |(&a, &b): (&f32, &f32)| f64::from(a) * f64::from(b);
    let (left, right) = (left.chunks_exact(SUMS), right.chunks_exact(SUMS));
    let rest: f64 = left.remainder().iter().zip(right.remainder()).map(product).sum();
    let mut sums = [0.0; SUMS];
    for (left, right) in left.zip(right) {
        for (sum, pair) in sums.iter_mut().zip(left.iter().zip(right)) {
            *sum += product(pair);
        }
    }
    sums.iter().sum::<f64>() + rest
}

fn cosine(left: &[f32], right: &[f32]) -> f32 {
    let norms = (dot(left, left) * dot(right, right)).sqrt();
    if norms > 0.0 { (dot(left, right) / norms) as f32 } else { 0.0 }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
