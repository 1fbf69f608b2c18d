//! Adafactor (Shazeer and Stern 2018, algorithms 4 and 5).
//!
//! It is like transformers' `Adafactor` with `relative_step=False`. The decay of the weights and the scale of
//! the parameters are not here, since every optimiser has them.

use tch::{Kind, Tensor};

use super::{OptimizerConfig, Rule, Step, Update, sum_of_each};
use crate::parameters::Parameters;

/// The moments of every parameter.
pub(super) struct Adafactor {
    beta1: Option<f64>,
    decay_exponent: f64,
    clip_threshold: f64,
    epsilon1: f64,
    /// The moments of each stack of parameters.
    moments: Vec<Moments>,
}

struct Moments {
    /// Mean of the updates, which include the learning rate, and not of the gradients.
    ///
    /// It is `None` without momentum.
    mean: Option<Tensor>,
    square: Square,
}

/// The means of the squares of gradients.
enum Square {
    /// The means of each row [.., rows] and each column [.., columns] of a matrix.
    ///
    /// Their product stands for the mean of each element.
    Factored { row: Tensor, column: Tensor },
    /// The mean of each element of a vector.
    Full(Tensor),
}

impl Adafactor {
    pub(super) fn new(config: &OptimizerConfig, parameters: &Parameters) -> Self {
        let moments = |parameter: &Tensor| {
            let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, parameter.device()));
            let shape = parameter.size();
            let square = match shape.as_slice() {
                [parameters, outer @ .., rows, columns] => Square::Factored {
                    row: zeros(&[&[*parameters], outer, &[*rows]].concat()),
                    column: zeros(&[&[*parameters], outer, &[*columns]].concat()),
                },
                shape => Square::Full(zeros(shape)),
            };
            Moments { mean: config.beta1.map(|_| zeros(&shape)), square }
        };
        Adafactor {
            beta1: config.beta1,
            decay_exponent: config.decay_exponent.unwrap_or(0.8),
            clip_threshold: config.clip_threshold.unwrap_or(1.0),
            epsilon1: config.epsilon1.unwrap_or(1e-30),
            moments: parameters.stacks().iter().map(|stack| moments(&stack.tensor)).collect(),
        }
    }
}

impl Rule for Adafactor {
    fn update(&mut self, stack: usize, step: &Step, update: Update) {
        let Moments { mean, square } = &mut self.moments[stack];
        // The decay in step t is 1 - t^-x.
        let weight = (step.number as f64).powf(-self.decay_exponent);
        let gradient = update.gradient;
        let gradient_square = gradient.square();
        let clip_square = step.clip.square();
        let moment = |mean: Tensor| mean * &clip_square + self.epsilon1;
        // The update is gradient * left * right. Its root mean square is computed without the update or its
        // square.
        let (left, right, sum_of_squares) = match square {
            Square::Factored { row, column } => {
                let _ = row.lerp_(&moment(mean_over(&gradient_square, -1, false)), weight);
                let _ = column.lerp_(&moment(mean_over(&gradient_square, -2, false)), weight);
                let left = ((mean_over(row, -1, true) / &*row).sqrt() * &step.clip).unsqueeze(-1);
                let right = column.rsqrt();
                let of_rows = gradient_square.matmul(&right.square().unsqueeze(-1));
                (left.shallow_clone(), right.unsqueeze(-2), sum_of_each(&(of_rows * left.square())))
            }
            Square::Full(square) => {
                let _ = square.lerp_(&moment(gradient_square.shallow_clone()), weight);
                let right = square.rsqrt();
                let of_elements = gradient_square * right.square();
                (step.clip.shallow_clone(), right, sum_of_each(&of_elements) * clip_square)
            }
        };
        let elements = gradient.numel() as f64 / gradient.size()[0] as f64;
        let root_mean_square = (sum_of_squares / elements).sqrt();
        let shortened = (root_mean_square / self.clip_threshold).clamp_min(1.0).reciprocal();
        let left = left * shortened * update.learning_rate;
        let mut parameter = update.parameter;
        match (mean, self.beta1) {
            (Some(mean), Some(beta1)) => {
                *mean *= beta1;
                let _ = mean.addcmul_(&(gradient * (left * (1.0 - beta1))), &right);
                parameter -= &*mean;
            }
            _ => {
                let _ = parameter.addcmul_(&(gradient * -left), &right);
            }
        }
    }

    fn state(&self) -> Vec<(&'static str, Vec<Option<&Tensor>>)> {
        let (mut rows, mut columns, mut squares, mut means) = (vec![], vec![], vec![], vec![]);
        for Moments { mean, square } in &self.moments {
            let (row, column, full) = match square {
                Square::Factored { row, column } => (Some(row), Some(column), None),
                Square::Full(square) => (None, None, Some(square)),
            };
            rows.push(row);
            columns.push(column);
            squares.push(full);
            means.push(mean.as_ref());
        }
        vec![
            ("adafactor.row.", rows),
            ("adafactor.column.", columns),
            ("adafactor.square.", squares),
            ("adafactor.mean.", means),
        ]
    }
}

fn mean_over(tensor: &Tensor, dimension: i64, keep: bool) -> Tensor {
    tensor.mean_dim([dimension].as_slice(), keep, Kind::Float)
}
