//! The gradient of one batch: the network, its exits, and the weighted loss over them.

use calm_checkpoint::T5Config;
use calm_model::{Dropout, T5, TeacherForcing, Weights};
use tch::{Kind, Tensor};

use crate::Error;
use crate::batches::Batch;
use crate::config::{ObjectiveConfig, Precision};
use crate::objective::{HeadLoss, exits_of_step};

/// What the gradient depends on besides parameters and batch.
#[derive(Debug, Clone)]
pub struct StepConfig<'a> {
    /// The network.
    pub t5_config: &'a T5Config,
    /// Type of activations and matrix products.
    pub precision: Precision,
    /// The multi-exit loss.
    pub objective: &'a ObjectiveConfig,
    /// Of the sampling of exits. Dropout takes libtorch's own seed.
    pub seed: u64,
}

/// The exits that a batch was computed at, and their losses.
pub struct BatchLosses {
    /// Layers, from 1.
    pub layers: Vec<usize>,
    /// Sum over the target tokens of each exit's negative log-likelihood: [exits], f32 on the device.
    pub nll: Tensor,
}

/// Adds a batch's part of the gradient of the mean over `step_tokens` target tokens to that of `parameters`. `draw` decides which exits
/// are sampled. Nothing waits for the device.
///
/// # Errors
/// The parameters are not those of the network.
pub fn add_gradient(
    config: &StepConfig<'_>,
    parameters: &Weights,
    batch: &Batch,
    draw: u64,
    step_tokens: usize,
) -> Result<BatchLosses, Error> {
    let kind = match config.precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    };
    // A differentiable cast per step: activations in `kind`, parameters and their gradients in f32.
    let model = T5::new(config.t5_config, &parameters.map(|tensor| tensor.to_kind(kind)))?;
    let dropout = Dropout { rate: config.objective.dropout };
    let states = model.decoder_states(&TeacherForcing {
        sources: &batch.sources,
        decoder_inputs: &batch.decoder_inputs,
        dropout,
    });
    let exits = exits_of_step(config.objective, states.len(), config.seed, draw);
    let head = HeadLoss {
        head: &model.head().detach(),
        targets: &batch.targets,
        step_tokens,
        label_smoothing: config.objective.label_smoothing,
        distillation: config.objective.distillation,
    };
    let mut head_gradient = Tensor::zeros(model.head().size(), (Kind::Float, batch.targets.device()));
    let (mut nll, mut surrogate) = (Vec::new(), Vec::new());
    let mut teacher: Option<Tensor> = None;
    // Each exit is differentiated down to its state before the next one is computed, so that all that is kept of it is one gradient of
    // the state's size. From the last exit down, since it teaches the others.
    for exit in exits.iter().rev() {
        let state = &states[exit.layer - 1];
        let leaf = state.detach().set_requires_grad(true);
        let inputs = dropout.apply(&model.head_input(&leaf)).flatten(0, 1).index_select(0, &batch.positions);
        let loss = head.exit(exit.weight, &inputs.detach(), teacher.as_ref(), &mut head_gradient);
        (&inputs * loss.gradient).sum(Kind::Float).backward();
        surrogate.push((state * leaf.grad()).sum(Kind::Float));
        nll.push(loss.nll);
        teacher.get_or_insert_with(|| inputs.detach());
    }
    surrogate.push((model.head() * head_gradient.to_kind(kind)).sum(Kind::Float));
    Tensor::stack(&surrogate, 0).sum(Kind::Float).backward();
    nll.reverse();
    Ok(BatchLosses { layers: exits.iter().map(|exit| exit.layer).collect(), nll: Tensor::stack(&nll, 0) })
}
