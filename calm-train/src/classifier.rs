//! The second stage: the early-exit classifier on the frozen backbone (CALM, section 3.5).

use calm_checkpoint::{CLASSIFIER_BIAS, CLASSIFIER_WEIGHT};
use calm_model::{Dropout, T5, TeacherForcing, Weights};
use tch::{Device, Kind, Tensor};

use crate::batches::Batch;
use crate::config::ClassifierConfig;
use crate::optimizer::{Optimizer, OptimizerConfig};
use crate::parameters::Parameters;

/// The classifier while it is trained.
pub struct ClassifierTraining {
    /// The weight `[d_model]` and the bias `[1]`.
    parameters: Parameters,
    optimizer: Optimizer,
    config: ClassifierConfig,
}

/// How well the classifier decides at one layer.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LayerF1 {
    /// Number of the layer, from 1.
    pub layer: usize,
    /// F1 of "do not exit" at 0.5, which is the class of Table D.1 in the paper, in `[0,1]`.
    pub do_not_exit_f1: f64,
    /// Fraction of tokens on which the layer already agrees with the last one.
    pub agreement: f64,
}

impl ClassifierTraining {
    /// Starts from zeros, which is a confidence of one half everywhere.
    pub fn new(model: &T5, config: &ClassifierConfig) -> Self {
        let sizes = [(CLASSIFIER_WEIGHT, model.config().d_model), (CLASSIFIER_BIAS, 1)];
        let zeros = |size: i64| Tensor::zeros([size], (Kind::Float, Device::Cpu));
        let weights = Weights::new(sizes.map(|(name, size)| (name.to_owned(), zeros(size))).into());
        let parameters = Parameters::separate(&weights, model.device());
        // A logistic regression needs no clipping, and its two vectors do not decay.
        let adam =
            OptimizerConfig { beta2: Some(0.999), clip_norm: f64::INFINITY, ..OptimizerConfig::default() };
        let optimizer = Optimizer::new(&adam, &parameters);
        ClassifierTraining { parameters, optimizer, config: config.clone() }
    }

    /// Takes one step of Adam, and returns the loss, a scalar on the device.
    ///
    /// The loss is the mean over layers 1..L-1 of the binary cross-entropy. Layers are independent, as in the
    /// paper, where the geometric-like alternative was worse.
    pub fn step(&mut self, model: &T5, batch: &Batch) -> Tensor {
        let (states, labels) = states_and_labels(model, batch);
        let (weight, bias) = weight_and_bias(&self.parameters.cast(Kind::Float));
        let logits = states.matmul(&weight) + bias;
        let weights = self.config.class_balance.then(|| class_weights(&labels));
        let loss = logits.binary_cross_entropy_with_logits(
            &labels,
            weights.as_ref(),
            None::<&Tensor>,
            tch::Reduction::Mean,
        );
        let gradients = self.parameters.gradients(&[loss.shallow_clone()]);
        let _gradient_norm = self.optimizer.step(&self.parameters, &gradients, self.config.learning_rate);
        loss.detach()
    }

    /// Returns the weight `[d_model]` and the bias `[1]`.
    pub fn parameters(&self) -> (Tensor, Tensor) {
        weight_and_bias(&self.parameters.weights())
    }

    /// Whether the training has not diverged. Waits for the device.
    pub fn is_finite(&self) -> bool {
        self.parameters.are_finite()
    }

    /// Computes F1 of "do not exit" at each layer below the last, over a few batches.
    pub fn f1(&self, model: &T5, batches: &[Batch]) -> Vec<LayerF1> {
        let _no_grad = tch::no_grad_guard();
        let (weight, bias) = self.parameters();
        let layers = model.config().decoder_layers() as usize - 1;
        let mut counts = vec![[0.0; 4]; layers];
        for batch in batches {
            let (states, labels) = states_and_labels(model, batch);
            let stay = (states.matmul(&weight) + &bias).lt(0.0);
            let should_stay = labels.lt(0.5);
            let sum = |x: Tensor| x.sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
            let sums = [
                sum(stay.logical_and(&should_stay)),
                sum(stay.logical_and(&should_stay.logical_not())),
                sum(stay.logical_not().logical_and(&should_stay)),
                sum(labels.ones_like()),
            ];
            for (layer, counts) in counts.iter_mut().enumerate() {
                for (count, sum) in counts.iter_mut().zip(&sums) {
                    *count += sum.double_value(&[layer as i64]);
                }
            }
        }
        let f1 = |(layer, [hit, wrong, missed, total]): (usize, [f64; 4])| LayerF1 {
            layer: layer + 1,
            do_not_exit_f1: 2.0 * hit / (2.0 * hit + wrong + missed).max(1.0),
            agreement: 1.0 - (hit + missed) / total.max(1.0),
        };
        counts.into_iter().enumerate().map(f1).collect()
    }
}

fn weight_and_bias(weights: &Weights) -> (Tensor, Tensor) {
    let of = |name| weights.get(name).expect("the classifier has a weight and a bias").shallow_clone();
    (of(CLASSIFIER_WEIGHT), of(CLASSIFIER_BIAS))
}

/// Computes weights [L-1, tokens] that give each class half of a layer's weight.
///
/// The weight of a token is 1 / (2 * the share of its label's class). If a layer lacks a class, the other one
/// still has that half.
fn class_weights(labels: &Tensor) -> Tensor {
    let exits = labels.mean_dim([1i64].as_slice(), true, Kind::Float);
    let share = labels * &exits + (1.0 - labels) * (1.0 - &exits);
    0.5 / share
}

/// Computes the states of all layers below the last [L-1, tokens, d_model], and the labels [L-1, tokens].
///
/// A label says whether the layer's best token is that of the last layer.
fn states_and_labels(model: &T5, batch: &Batch) -> (Tensor, Tensor) {
    let _no_grad = tch::no_grad_guard();
    let states = model.decoder_states(&TeacherForcing {
        sources: &batch.sources,
        source_lengths: &batch.source_lengths,
        decoder_inputs: &batch.decoder_inputs,
        dropout: &Dropout::off(),
    });
    let states: Vec<Tensor> =
        states.iter().map(|state| state.flatten(0, 1).index_select(0, &batch.positions)).collect();
    let best: Vec<Tensor> = states
        .iter()
        .map(|state| model.head_input(state).linear(model.head(), None::<&Tensor>).argmax(-1, false))
        .collect();
    let (last, below) = best.split_last().expect("a decoder has at least one layer");
    let labels: Vec<Tensor> =
        below.iter().map(|tokens| tokens.eq_tensor(last).to_kind(Kind::Float)).collect();
    (Tensor::stack(&states[..states.len() - 1], 0).to_kind(Kind::Float), Tensor::stack(&labels, 0))
}
