//! Heads that were trained for single layers of a frozen backbone, on the backbone's own predictions.
//!
//! A state after layer 2 is not what the shared head was trained to read at the top. An exit head turns it
//! into something that the shared head reads better, or is a head of its own (Valade, Self-Supervised Early
//! Exits, arXiv 2407.21082). `calm train --heads` makes them, without labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backbone::BackboneShape;
use crate::exits::Exits;
use crate::matrix::{Matrix, dot};
use crate::measure::FittedTo;

/// The exit heads of a backbone, all of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct ExitHeads {
    kind: HeadKind,
    layers: Exits,
    /// By layer, from 1. Handles on one model share them.
    heads: Arc<BTreeMap<usize, ExitHead>>,
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
        /// `[vocab_size, d_model]`
        vocabulary: Matrix,
    },
}

/// Root-mean-square normalisation without a mean or a bias, as T5 has it.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadNorm {
    /// `[d_model]`
    pub weight: Vec<f32>,
    /// What is added to the mean square.
    pub epsilon: f32,
}

/// What a head makes of states.
pub(crate) enum HeadOutput {
    /// States for the final norm and the shared head: `[states, d_model]`.
    States(Matrix),
    /// Logits: `[states, vocab_size]`.
    Logits(Matrix),
}

impl ExitHeads {
    /// Puts heads together, by the layers that they follow, and remembers what they were trained on.
    ///
    /// # Errors
    /// The message says what is wrong: there is no head, heads are of several kinds, a layer is none that a
    /// decoder of this shape may leave at, or the matrices of a head do not fit the shape or each other.
    pub fn new(
        heads: BTreeMap<usize, ExitHead>,
        fitted_to: FittedTo,
        shape: &BackboneShape,
    ) -> Result<Self, String> {
        let Some(kind) = heads.values().next().map(ExitHead::kind) else {
            return Err("there must be a head at least".to_owned());
        };
        let below_last = Exits::all_below(shape.num_layers);
        let layers = heads.keys().copied().collect::<Vec<_>>();
        let layers = Exits::new(&layers).map_err(|error| error.to_string())?;
        for (&layer, head) in &heads {
            if !below_last.contains(layer) {
                return Err(format!(
                    "a head of layer {layer} is none below the last of {}",
                    shape.num_layers
                ));
            }
            if head.kind() != kind {
                return Err(format!("the heads are {kind}, but that of layer {layer} is {}", head.kind()));
            }
            head.check(shape).map_err(|reason| format!("the head of layer {layer} {reason}"))?;
        }
        Ok(Self {
            kind,
            layers,
            heads: Arc::new(heads),
            fitted_to: Arc::new(fitted_to),
            fingerprint: Arc::default(),
        })
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

    /// The sources that the backbone predicted for to train them.
    pub fn fitted_to(&self) -> &FittedTo {
        &self.fitted_to
    }

    /// FLOPs of the logits of one head, in a backbone whose shared head takes `head_flops`; those of the
    /// largest if ranks differ.
    pub fn flops(&self, head_flops: f64) -> f64 {
        self.largest(|head| match head {
            ExitHead::Linear { .. } => head.multiplications(),
            _ => head.multiplications() + 0.5 * head_flops,
        }) * 2.0
    }

    /// Bytes that the logits of one head read, in a backbone whose shared head takes `head_bytes`.
    pub fn bytes(&self, head_bytes: f64) -> f64 {
        self.largest(|head| {
            let own = size_of::<f32>() as f64 * head.multiplications();
            if head.kind() == HeadKind::Linear { own } else { own + head_bytes }
        })
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

    fn check(&self, shape: &BackboneShape) -> Result<(), String> {
        let d_model = shape.d_model;
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
                matrix("vocabulary", vocabulary, [shape.vocab_size, d_model])
            }
        }
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
