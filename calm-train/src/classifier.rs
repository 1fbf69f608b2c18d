//! The second stage: the early-exit classifier on the frozen backbone (CALM, section 3.5).

use calm_model::{Dropout, T5, TeacherForcing};
use tch::{Kind, Tensor};

use crate::batches::Batch;

/// Weight [d_model] and bias [1] of the classifier, while it is trained.
pub struct ClassifierTraining {
    /// Weight [d_model] and bias [1], with the moments of Adam beside each.
    parameters: [Trained; 2],
    learning_rate: f64,
    steps: i32,
}

struct Trained {
    value: Tensor,
    mean: Tensor,
    square: Tensor,
}

/// How well the classifier decides at one layer.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LayerF1 {
    /// Layer, from 1.
    pub layer: usize,
    /// F1 of "do not exit" at 0.5, the class of Table D.1 in the paper, in [0,1].
    pub do_not_exit_f1: f64,
    /// Fraction of tokens on which the layer already agrees with the last one.
    pub agreement: f64,
}

impl ClassifierTraining {
    /// Starts from zeros, that is, from a confidence of one half everywhere.
    pub fn new(model: &T5, learning_rate: f64) -> Self {
        let zeros = |n: i64| Tensor::zeros([n], (Kind::Float, model.device()));
        let trained =
            |n| Trained { value: zeros(n).set_requires_grad(true), mean: zeros(n), square: zeros(n) };
        ClassifierTraining {
            parameters: [trained(model.config().d_model), trained(1)],
            learning_rate,
            steps: 0,
        }
    }

    /// One step of Adam on the mean over layers 1..L-1 of the binary cross-entropy (independent per layer, as in the paper:
    /// its geometric-like alternative was worse). Returns the loss, a scalar on the device.
    pub fn step(&mut self, model: &T5, batch: &Batch) -> Tensor {
        let (states, labels) = states_and_labels(model, batch);
        let [weight, bias] = &self.parameters;
        let logits = states.matmul(&weight.value) + &bias.value;
        let loss = logits.binary_cross_entropy_with_logits(
            &labels,
            None::<&Tensor>,
            None::<&Tensor>,
            tch::Reduction::Mean,
        );
        loss.backward();
        self.update();
        loss.detach()
    }

    /// Weight [d_model] and bias [1].
    pub fn parameters(&self) -> (Tensor, Tensor) {
        let [weight, bias] = &self.parameters;
        (weight.value.detach(), bias.value.detach())
    }

    /// F1 of "do not exit" at each layer below the last, over a few batches.
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

    fn update(&mut self) {
        const BETAS: (f64, f64) = (0.9, 0.999);
        let _no_grad = tch::no_grad_guard();
        self.steps += 1;
        for Trained { value, mean, square } in &mut self.parameters {
            let grad = value.grad();
            let _ = mean.lerp_(&grad, 1.0 - BETAS.0);
            let _ = square.lerp_(&grad.square(), 1.0 - BETAS.1);
            let corrected_mean = &*mean / (1.0 - BETAS.0.powi(self.steps));
            let corrected_square = &*square / (1.0 - BETAS.1.powi(self.steps));
            let mut value = value.detach();
            value -= corrected_mean * self.learning_rate / (corrected_square.sqrt() + 1e-8);
        }
        for trained in &mut self.parameters {
            trained.value.zero_grad();
        }
    }
}

/// States of all layers below the last [L-1, tokens, d_model] and whether each layer's best token is the last layer's
/// [L-1, tokens].
fn states_and_labels(model: &T5, batch: &Batch) -> (Tensor, Tensor) {
    let _no_grad = tch::no_grad_guard();
    let states = model.decoder_states(&TeacherForcing {
        sources: &batch.sources,
        decoder_inputs: &batch.decoder_inputs,
        dropout: Dropout::OFF,
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
