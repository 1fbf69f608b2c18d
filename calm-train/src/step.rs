//! The gradient of one batch: the network, its exits, and the weighted loss over them.

use calm_checkpoint::T5Config;
use calm_core::Backbone;
use calm_model::{T5, TeacherForcing};
use tch::{Kind, Tensor};

use crate::Error;
use crate::batches::Batch;
use crate::config::{ObjectiveConfig, Precision, ShallowDeepConfig};
use crate::objective::{HeadLoss, exits_of_step, nll_sums, skip_probabilities};
use crate::parameters::{Gradients, Parameters};
use crate::shallow_deep::distillation_gradients;

/// What the gradient depends on besides parameters and batch.
#[derive(Debug, Clone)]
pub struct StepConfig<'a> {
    /// The configuration of the network.
    pub t5_config: &'a T5Config,
    /// The type of activations and matrix products.
    pub precision: Precision,
    /// The multi-exit loss.
    pub objective: &'a ObjectiveConfig,
    /// Seed of the sampling of exits. Dropout takes libtorch's own seed.
    pub seed: u64,
}

/// The part of one batch in the gradient of a step.
pub struct BatchGradient {
    /// The layers of the exits that were computed, from 1.
    pub layers: Vec<usize>,
    /// Sum of each exit's negative log-likelihood over the target tokens: `[exits]`, f32 on the device.
    pub nll: Tensor,
    /// The gradients for the optimiser.
    pub gradients: Gradients,
}

/// Computes a batch's part of the gradient of the mean over `step_tokens` target tokens.
///
/// `draw` decides which exits are sampled. Nothing waits for the device.
///
/// # Errors
/// Fails if the parameters are not those of the network.
pub fn batch_gradient(
    config: &StepConfig<'_>,
    parameters: &Parameters,
    batch: &Batch,
    draw: u64,
    step_tokens: usize,
) -> Result<BatchGradient, Error> {
    let kind = match config.precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    };
    // Each step has one differentiable cast: activations are in `kind`, parameters and their gradients in
    // f32.
    let model = T5::new(config.t5_config, &parameters.cast(kind))?;
    let layers = model.shape().num_layers;
    let exits = exits_of_step(config.objective, layers, config.seed, draw);
    let Batch { sources, source_lengths, decoder_inputs, .. } = batch;
    let dropout = model.dropout(config.objective.dropout, sources, decoder_inputs, exits.len());
    let dropout = dropout.skipping_layers(skip_probabilities(config.objective, layers));
    let states =
        model.decoder_states(&TeacherForcing { sources, source_lengths, decoder_inputs, dropout: &dropout });
    let head = HeadLoss {
        head: &model.head().detach(),
        targets: &batch.targets,
        step_tokens,
        label_smoothing: config.objective.label_smoothing,
        distillation: config.objective.distillation,
    };
    let mut head_gradient = Tensor::zeros(model.head().size(), (Kind::Float, batch.targets.device()));
    // The gradient of the step is that of the sum of all elements of these tensors.
    let (mut target_probabilities, mut surrogate) = (Vec::new(), Vec::new());
    let mut teacher: Option<Tensor> = None;
    // Each exit is differentiated down to its state before the next one is computed, so that only one
    // gradient of the state's size is kept of it. The last exit comes first, since it teaches the others.
    for exit in exits.iter().rev() {
        let state = &states[exit.layer - 1];
        let leaves = [state, model.head_norm()].map(|tensor| tensor.detach().set_requires_grad(true));
        let normed = model.head_input_by(&leaves[1], &leaves[0]);
        let inputs = dropout.apply(&normed).flatten(0, 1).index_select(0, &batch.positions);
        let loss = head.exit(exit.weight, &inputs.detach(), teacher.as_ref(), &mut head_gradient);
        let gradients = Tensor::run_backward(&[&inputs * loss.gradient], &leaves, false, false);
        surrogate.push(state * &gradients[0]);
        surrogate.push(model.head_norm() * &gradients[1]);
        target_probabilities.push(loss.target_probabilities);
        teacher.get_or_insert_with(|| inputs.detach());
    }
    if let Some(shallow_deep) = &config.objective.shallow_deep {
        surrogate.extend(distillation(shallow_deep, &model, &states, batch, step_tokens));
    }
    surrogate.push(model.head() * head_gradient.to_kind(kind));
    target_probabilities.reverse();
    Ok(BatchGradient {
        layers: exits.iter().map(|exit| exit.layer).collect(),
        nll: nll_sums(&Tensor::stack(&target_probabilities, 0)),
        gradients: parameters.gradients(&surrogate),
    })
}

/// Tensors whose elements add up to something with the gradient of the distances between layers.
///
/// As with exits, the gradient of each student is taken down to its state before the next one is.
fn distillation(
    config: &ShallowDeepConfig,
    model: &T5,
    states: &[Tensor],
    batch: &Batch,
    step_tokens: usize,
) -> Vec<Tensor> {
    // The factor of a tied head is no part of these states.
    let scale = model.config().head_scale();
    let normed = |norm: &Tensor, state: &Tensor| {
        let inputs = model.head_input_by(norm, state).flatten(0, 1).index_select(0, &batch.positions);
        if scale == 1.0 { inputs } else { inputs / scale }
    };
    let all: Vec<Tensor> =
        tch::no_grad(|| states.iter().map(|state| normed(model.head_norm(), state)).collect());
    let mut surrogate = Vec::new();
    for (layer, gradient) in distillation_gradients(config, &all, step_tokens) {
        let state = &states[layer - 1];
        let leaves = [state, model.head_norm()].map(|tensor| tensor.detach().set_requires_grad(true));
        let inputs = normed(&leaves[1], &leaves[0]);
        let gradient = gradient.to_kind(inputs.kind());
        let gradients = Tensor::run_backward(&[inputs * gradient], &leaves, false, false);
        surrogate.push(state * &gradients[0]);
        surrogate.push(model.head_norm() * &gradients[1]);
    }
    surrogate
}
