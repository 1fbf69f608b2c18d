//! Heads that were trained for single layers of a frozen backbone, on the backbone's own predictions.
//!
//! A state after layer 2 is not what the shared head was trained to read at the top. An exit head turns it
//! into something that the shared head reads better, or is a head of its own (Valade, Self-Supervised Early
//! Exits, arXiv 2407.21082). `calm train --heads` makes them, without labels.
//!
//! Heads may know a part of the vocabulary alone, the tokens that nearly all of the model's outputs consist
//! of: where the vocabulary is large, a product with all of it costs as much as many layers. Then the last
//! layer may have a head too, whose tokens are taken where it is sure, in place of the whole product.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backbone::{BackboneShape, Token};
use crate::exits::Exits;
use crate::head_confidence::HeadConfidence;
use crate::matrix::{Matrix, dot};
use crate::measure::FittedTo;

/// The exit heads of a backbone, all of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct ExitHeads {
    kind: HeadKind,
    layers: Exits,
    /// By layer, from 1. Handles on one model share them.
    heads: Arc<BTreeMap<usize, ExitHead>>,
    /// The tokens that the heads know, ascending; `None` for all.
    vocabulary: Option<Arc<[Token]>>,
    /// By layer.
    confidences: Arc<BTreeMap<usize, HeadConfidence>>,
    fitted_to: Arc<FittedTo>,
    fingerprint: Arc<str>,
}

/// What a head computes of a state h. All but `linear` end in the backbone's own final norm and shared head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HeadKind {
    /// `h + up(down(norm(h)))`.
    LowRank,
    /// `W h + b`.
    Affine,
    /// A norm and a matrix over the vocabulary of its own.
    Linear,
}

calm_names::names!(HeadKind, "kind of exit head", {
    LowRank => "low-rank",
    Affine => "affine",
    Linear => "linear",
});

/// The head of one layer.
#[derive(Debug, Clone, PartialEq)]
pub enum ExitHead {
    /// See [`HeadKind::LowRank`].
    LowRank {
        /// The norm in front.
        norm: HeadNorm,
        /// `[rank, d_model]`
        down: Matrix,
        /// `[d_model, rank]`
        up: Matrix,
    },
    /// See [`HeadKind::Affine`].
    Affine {
        /// `[d_model, d_model]`
        weight: Matrix,
        /// `[d_model]`
        bias: Vec<f32>,
    },
    /// See [`HeadKind::Linear`].
    Linear {
        /// The norm in front.
        norm: HeadNorm,
        /// `[tokens, d_model]`, the tokens that the heads know.
        vocabulary: Matrix,
    },
}

/// Root-mean-square normalisation without a mean or a bias, as T5 has it.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadNorm {
    /// `[d_model]`
    pub weight: Vec<f32>,
    /// What is added to the mean square before its root is taken.
    pub epsilon: f32,
}

/// What a head makes of states.
pub(crate) enum HeadOutput {
    /// States for the final norm and the shared head: `[states, d_model]`.
    States(Matrix),
    /// Logits of the tokens that the heads know: `[states, tokens]`.
    Logits(Matrix),
}

impl ExitHeads {
    /// Puts heads together, by the layers that they follow, and remembers what they were trained on. They
    /// know the tokens of `vocabulary`, or all if there is nothing.
    ///
    /// # Errors
    /// The message says what is wrong: there is no head, heads are of several kinds, a layer is none that a
    /// decoder of this shape may leave at (its last layer, unless the vocabulary is a part), the tokens do
    /// not ascend or are not of the backbone, or the matrices of a head do not fit the shape or each other.
    pub fn new(
        heads: BTreeMap<usize, ExitHead>,
        vocabulary: Option<Vec<Token>>,
        fitted_to: FittedTo,
        shape: &BackboneShape,
    ) -> Result<Self, String> {
        let Some(kind) = heads.values().next().map(ExitHead::kind) else {
            return Err("there must be a head at least".to_owned());
        };
        if let Some(vocabulary) = &vocabulary {
            check_vocabulary(vocabulary, shape)?;
        }
        let tokens = vocabulary.as_ref().map_or(shape.vocab_size, Vec::len);
        let most = if vocabulary.is_some() { shape.num_layers } else { shape.num_layers - 1 };
        let layers = heads.keys().copied().collect::<Vec<_>>();
        let layers = Exits::new(&layers).map_err(|error| error.to_string())?;
        for (&layer, head) in &heads {
            if layer > most {
                let last = shape.num_layers;
                return Err(format!("a head of layer {layer} is none below the last of {last}"));
            }
            if head.kind() != kind {
                return Err(format!("the heads are {kind}, but that of layer {layer} is {}", head.kind()));
            }
            head.check(shape.d_model, tokens)
                .map_err(|reason| format!("the head of layer {layer} {reason}"))?;
        }
        Ok(Self {
            kind,
            layers,
            heads: Arc::new(heads),
            vocabulary: vocabulary.map(Arc::from),
            confidences: Arc::default(),
            fitted_to: Arc::new(fitted_to),
            fingerprint: Arc::default(),
        })
    }

    /// The same heads with what says how likely the token of each one is the last layer's.
    ///
    /// # Errors
    /// The message says what is wrong: there is one of a layer without a head, or none of a layer with one,
    /// or one does not fit the backbone.
    pub fn with_confidences(
        self,
        confidences: BTreeMap<usize, HeadConfidence>,
        shape: &BackboneShape,
    ) -> Result<Self, String> {
        if !confidences.keys().eq(self.heads.keys()) {
            return Err("each head must have a confidence, if one has".to_owned());
        }
        for (layer, confidence) in &confidences {
            confidence.check(shape).map_err(|reason| format!("the confidence of layer {layer} {reason}"))?;
        }
        Ok(Self { confidences: Arc::new(confidences), ..self })
    }

    /// The same heads with the hash of the file that they were read from.
    #[must_use]
    pub fn with_fingerprint(self, fingerprint: &str) -> Self {
        Self { fingerprint: fingerprint.into(), ..self }
    }

    /// SHA-256 of their file, in hexadecimal; empty for heads that were not read from one.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// What the heads compute.
    pub fn kind(&self) -> HeadKind {
        self.kind
    }

    /// The layers that have a head.
    pub fn layers(&self) -> Exits {
        self.layers
    }

    /// The head of a layer, from 1.
    pub fn get(&self, layer: usize) -> Option<&ExitHead> {
        self.heads.get(&layer)
    }

    /// The heads by their layers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &ExitHead)> {
        self.heads.iter().map(|(&layer, head)| (layer, head))
    }

    /// The tokens that the heads know, ascending, or `None` if they know all. Columns of logits are these.
    pub fn vocabulary(&self) -> Option<&[Token]> {
        self.vocabulary.as_deref()
    }

    /// The token of a column of logits.
    pub fn token(&self, column: Token) -> Token {
        self.vocabulary().map_or(column, |vocabulary| vocabulary[column as usize])
    }

    /// How likely the token of a layer's head is the last layer's, if that was trained.
    pub fn confidence(&self, layer: usize) -> Option<&HeadConfidence> {
        self.confidences.get(&layer)
    }

    /// The sources that the backbone predicted for to train them.
    pub fn fitted_to(&self) -> &FittedTo {
        &self.fitted_to
    }

    /// FLOPs of the logits of one head, in a backbone of this shape; those of the largest if ranks differ.
    pub fn flops(&self, shape: &BackboneShape) -> f64 {
        let shared = 0.5 * self.share_of_head(shape) * shape.flops.head;
        self.largest(|head| match head {
            ExitHead::Linear { .. } => head.multiplications(),
            _ => head.multiplications() + shared,
        }) * 2.0
    }

    /// Bytes that the logits of one head read, in a backbone of this shape.
    pub fn bytes(&self, shape: &BackboneShape) -> f64 {
        let shared = self.share_of_head(shape) * shape.bytes.head;
        self.largest(|head| {
            let own = size_of::<f32>() as f64 * head.multiplications();
            if head.kind() == HeadKind::Linear { own } else { own + shared }
        })
    }

    /// The share of the shared head's rows that heads multiply with.
    fn share_of_head(&self, shape: &BackboneShape) -> f64 {
        self.vocabulary().map_or(1.0, |tokens| tokens.len() as f64 / shape.vocab_size.max(1) as f64)
    }

    fn largest(&self, of: impl Fn(&ExitHead) -> f64) -> f64 {
        self.heads.values().map(of).fold(0.0, f64::max)
    }
}

impl ExitHead {
    /// What the head computes.
    pub fn kind(&self) -> HeadKind {
        match self {
            Self::LowRank { .. } => HeadKind::LowRank,
            Self::Affine { .. } => HeadKind::Affine,
            Self::Linear { .. } => HeadKind::Linear,
        }
    }

    /// Makes a head of its tensors, which `take` gives by their names; a vector is a matrix of one row.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn of_tensors<E>(
        kind: HeadKind,
        epsilon: f32,
        mut take: impl FnMut(&'static str) -> Result<Matrix, E>,
    ) -> Result<Self, E> {
        let norm = |norm: Matrix| HeadNorm { weight: norm.data, epsilon };
        Ok(match kind {
            HeadKind::LowRank => {
                Self::LowRank { norm: norm(take("norm")?), down: take("down")?, up: take("up")? }
            }
            HeadKind::Affine => Self::Affine { weight: take("weight")?, bias: take("bias")?.data },
            HeadKind::Linear => Self::Linear { norm: norm(take("norm")?), vocabulary: take("vocabulary")? },
        })
    }

    /// The tensors of the head with their names and shapes.
    pub fn tensors(&self) -> Vec<(&'static str, Vec<usize>, &[f32])> {
        fn matrix<'a>(name: &'static str, of: &'a Matrix) -> (&'static str, Vec<usize>, &'a [f32]) {
            (name, vec![of.num_rows(), of.columns], &of.data)
        }
        fn vector<'a>(name: &'static str, of: &'a [f32]) -> (&'static str, Vec<usize>, &'a [f32]) {
            (name, vec![of.len()], of)
        }
        match self {
            Self::LowRank { norm, down, up } => {
                vec![vector("norm", &norm.weight), matrix("down", down), matrix("up", up)]
            }
            Self::Affine { weight, bias } => vec![matrix("weight", weight), vector("bias", bias)],
            Self::Linear { norm, vocabulary } => {
                vec![vector("norm", &norm.weight), matrix("vocabulary", vocabulary)]
            }
        }
    }

    /// What the norm in front adds to the mean square; 0 without a norm.
    pub fn epsilon(&self) -> f32 {
        match self {
            Self::LowRank { norm, .. } | Self::Linear { norm, .. } => norm.epsilon,
            Self::Affine { .. } => 0.0,
        }
    }

    /// Applies the head to states `[states, d_model]`.
    pub(crate) fn apply(&self, states: &Matrix) -> HeadOutput {
        let mut data = Vec::new();
        match self {
            Self::LowRank { norm, down, up } => {
                let (mut normed, mut narrow) = (Vec::new(), Vec::new());
                for state in states.rows() {
                    norm.apply(state, &mut normed);
                    narrow.clear();
                    narrow.extend(down.rows().map(|row| dot(row, &normed) as f32));
                    data.extend(up.rows().zip(state).map(|(row, &x)| x + dot(row, &narrow) as f32));
                }
                HeadOutput::States(Matrix { data, columns: states.columns })
            }
            Self::Affine { weight, bias } => {
                for state in states.rows() {
                    data.extend(weight.rows().zip(bias).map(|(row, b)| dot(row, state) as f32 + b));
                }
                HeadOutput::States(Matrix { data, columns: states.columns })
            }
            Self::Linear { norm, vocabulary } => {
                let mut normed = Vec::new();
                for state in states.rows() {
                    norm.apply(state, &mut normed);
                    data.extend(vocabulary.rows().map(|row| dot(row, &normed) as f32));
                }
                HeadOutput::Logits(Matrix { data, columns: vocabulary.num_rows() })
            }
        }
    }

    /// Multiplications of the head's own matrices for one state.
    fn multiplications(&self) -> f64 {
        match self {
            Self::LowRank { down, up, .. } => (down.data.len() + up.data.len()) as f64,
            Self::Affine { weight, .. } => weight.data.len() as f64,
            Self::Linear { vocabulary, .. } => vocabulary.data.len() as f64,
        }
    }

    /// Checks the shapes of a head that knows so many tokens.
    fn check(&self, d_model: usize, tokens: usize) -> Result<(), String> {
        let vector = |name: &str, vector: &[f32]| match vector.len() == d_model {
            true => Ok(()),
            false => Err(format!("has a {name} of {} elements instead of {d_model}", vector.len())),
        };
        let matrix = |name: &str, matrix: &Matrix, expected: [usize; 2]| {
            let found = [matrix.num_rows(), matrix.columns];
            let is_whole = found[0] * found[1] == matrix.data.len();
            match found == expected && is_whole {
                true => Ok(()),
                false => Err(format!("has a {name} of the shape {found:?} instead of {expected:?}")),
            }
        };
        match self {
            Self::LowRank { norm, down, up } => {
                vector("norm", &norm.weight)?;
                let rank = up.columns;
                if rank == 0 {
                    return Err("has a rank of 0".to_owned());
                }
                matrix("down", down, [rank, d_model])?;
                matrix("up", up, [d_model, rank])
            }
            Self::Affine { weight, bias } => {
                matrix("weight", weight, [d_model, d_model])?;
                vector("bias", bias)
            }
            Self::Linear { norm, vocabulary } => {
                vector("norm", &norm.weight)?;
                matrix("vocabulary", vocabulary, [tokens, d_model])
            }
        }
    }
}

fn check_vocabulary(vocabulary: &[Token], shape: &BackboneShape) -> Result<(), String> {
    let tokens = shape.vocab_size;
    if vocabulary.is_empty() || !vocabulary.is_sorted_by(|a, b| a < b) {
        return Err("the tokens that heads know must ascend, and there must be one at least".to_owned());
    }
    match vocabulary.iter().find(|&&token| token as usize >= tokens) {
        Some(token) => Err(format!("token {token} is not in the vocabulary, which ends at {tokens}")),
        None => Ok(()),
    }
}

impl HeadNorm {
    /// x [d_model] -> to [d_model]
    fn apply(&self, x: &[f32], to: &mut Vec<f32>) {
        let mean = dot(x, x) / x.len().max(1) as f64;
        let factor = 1.0 / (mean + f64::from(self.epsilon)).sqrt();
        to.clear();
        to.extend(x.iter().zip(&self.weight).map(|(&x, &weight)| weight * (f64::from(x) * factor) as f32));
    }
}
