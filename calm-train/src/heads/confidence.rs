//! How likely the token of a head is the last layer's: a logistic regression, see
//! [`HeadConfidence`](calm_core::HeadConfidence).

use calm_core::HeadConfidence;
use tch::{Kind, Tensor};

/// What a head says at some states.
pub(super) struct Judged {
    /// KL(last layer || head) in nats: [states]
    pub(super) divergence: Tensor,
    /// The head's margin: [states]
    pub(super) margin: Tensor,
    /// Whether the head's token is the last layer's: [states]
    pub(super) agrees: Tensor,
}

/// Pulls weights of the state towards 0: the precision of a normal distribution around it. A state has more
/// numbers than a small set of tokens can tell about.
const PRECISION: f64 = 20.0;

/// Steps of Newton's method, which is exact to the last digits after as many.
const STEPS: usize = 12;

/// Fits the regression by Newton's method.
pub(super) fn fit(states: &Tensor, judged: &Judged) -> HeadConfidence {
    let _no_grad = tch::no_grad_guard();
    let features = features(states, &judged.margin);
    let agrees = judged.agrees.to_kind(Kind::Double);
    let d_model = states.size()[1];
    let mut precision = vec![PRECISION; d_model as usize];
    // Margin and constant are hardly held back: just so much that there is a solution if all agree.
    precision.extend([1e-2, 1e-2]);
    let precision = Tensor::from_slice(&precision);
    let mut weights = Tensor::zeros([d_model + 2], (Kind::Double, features.device()));
    for _ in 0..STEPS {
        let probabilities = features.mv(&weights).sigmoid();
        let gradient = features.transpose(0, 1).mv(&(&probabilities - &agrees)) + &precision * &weights;
        let spread = &probabilities - probabilities.square();
        // [features, states] x [states, features]
        let curvature =
            (&features * spread.unsqueeze(1)).transpose(0, 1).matmul(&features) + precision.diag(0);
        let step = Tensor::linalg_solve(&curvature, &gradient, true);
        // Far from the solution a whole step may go too far.
        let length = step.norm().double_value(&[]);
        weights -= &step * (4.0 / length.max(4.0));
    }
    let mut weights = Vec::<f64>::try_from(&weights).unwrap_or_default();
    let (bias, margin) = (weights.pop().unwrap_or(0.0), weights.pop().unwrap_or(0.0));
    let weight = weights.into_iter().map(|weight| weight as f32).collect();
    HeadConfidence { weight, margin: margin as f32, bias: bias as f32 }
}

/// The probabilities that a regression gives: [states]
pub(super) fn probabilities(confidence: &HeadConfidence, states: &Tensor, judged: &Judged) -> Tensor {
    let HeadConfidence { weight, margin, bias } = confidence;
    let weights: Vec<f64> = weight.iter().chain([margin, bias]).map(|&weight| f64::from(weight)).collect();
    features(states, &judged.margin).mv(&Tensor::from_slice(&weights)).sigmoid()
}

/// What the regression reads: [states, d_model + 2]
fn features(states: &Tensor, margin: &Tensor) -> Tensor {
    let states = states.to_kind(Kind::Double);
    let mean_square = states.square().mean_dim([-1i64].as_slice(), true, Kind::Double);
    let states = states / mean_square.clamp_min(f64::MIN_POSITIVE).sqrt();
    // The same function as the measure computes, at each margin.
    let margin = margin.to_kind(Kind::Float).contiguous();
    let margins = Vec::<f32>::try_from(&margin).unwrap_or_default();
    let margins: Vec<f64> = margins.into_iter().map(HeadConfidence::margin_feature).collect();
    let margins = Tensor::from_slice(&margins).unsqueeze(1);
    let ones = margins.ones_like();
    Tensor::cat(&[states, margins, ones], 1)
}
