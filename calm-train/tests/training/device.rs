//! Training on a device is compared with training in f32 on the CPU.
//!
//! `CALM_TEST_DEVICE` names the device (`cuda:0`; the CPU without it).

use std::sync::OnceLock;

use calm_checkpoint::{SpecialTokens, T5Config};
use calm_model::init;
use calm_train::batches::{Batch, FrameTokens, collate};
use calm_train::optimizer::Optimizer;
use calm_train::parameters::Parameters;
use calm_train::step::{StepConfig, batch_gradient};
use calm_train::tokens::TokenPair;
use calm_train::{ModelConfig, ObjectiveConfig, OptimizerConfig, OptimizerKind, Precision};
use tch::Device;

use crate::tiny::alone;

const STEPS: u64 = 20;

/// Opens the device once, since libtorch asks for its CUDA library once in a process.
fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    *DEVICE.get_or_init(|| {
        let name = std::env::var("CALM_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
        calm_model::device::init(Some(&name)).unwrap()
    })
}

/// Makes a network: heads of 16 columns take CUDA's fused attention, heads of 12 do not.
fn t5_config(d_kv: i64) -> T5Config {
    let model = ModelConfig {
        d_model: 64,
        d_kv,
        d_ff: 96,
        num_heads: 4,
        num_layers: 2,
        num_decoder_layers: 3,
        tie_word_embeddings: true,
    };
    model.t5_config(101, SpecialTokens { pad: 0, end: 1 })
}

/// Makes a batch of rows of unequal lengths, none of them a multiple of 8.
fn batch() -> Batch {
    let token = |i: usize| 2 + (i * 7919 % 99) as u32;
    let pair = |row: usize| TokenPair {
        source: (0..5 + row % 15).map(|i| token(31 * row + i)).collect(),
        target: (0..3 + row % 9).map(|i| token(17 * row + 2 * i)).collect(),
    };
    collate(&(0..30).map(pair).collect::<Vec<_>>(), FrameTokens { start: 0, pad: 0 })
}

/// Returns the loss per token of every exit before each step.
fn losses(t5_config: &T5Config, device: Device, precision: Precision, dropout: f64) -> Vec<Vec<f64>> {
    let objective = ObjectiveConfig { dropout, label_smoothing: 0.1, ..ObjectiveConfig::default() };
    let config = StepConfig { t5_config, precision, objective: &objective, seed: 1 };
    let parameters = Parameters::of_network(t5_config, &init::random_weights(t5_config, 1), device).unwrap();
    let optimizer =
        OptimizerConfig { kind: OptimizerKind::Adafactor, parameter_scale: true, ..Default::default() };
    let mut optimizer = Optimizer::new(&optimizer, &parameters);
    let batch = batch().to_device(device);
    let step = |draw| {
        tch::manual_seed(draw as i64);
        let tokens = batch.target_tokens;
        let gradient = batch_gradient(&config, &parameters, &batch, draw, tokens).unwrap();
        let _norm = optimizer.step(&parameters, &gradient.gradients, 0.02);
        let nll = Vec::<f32>::try_from(gradient.nll).unwrap();
        nll.into_iter().map(|nll| f64::from(nll) / tokens as f64).collect()
    };
    (1..=STEPS).map(step).collect()
}

#[test]
fn losses_are_those_of_the_cpu() {
    let (_alone, device) = (alone(), device());
    tch::set_num_threads(1);
    for d_kv in [16, 12] {
        let config = t5_config(d_kv);
        let expected = losses(&config, Device::Cpu, Precision::F32, 0.0);
        let (first, last) = (expected[0][2], expected[expected.len() - 1][2]);
        assert!(last < 0.7 * first, "the loss goes from {first} to {last}");
        for (precision, tolerance) in [(Precision::F32, 1e-3), (Precision::Bf16, 1e-2)] {
            let found = losses(&config, device, precision, 0.0);
            for (step, (found, expected)) in (1..).zip(found.iter().zip(&expected)) {
                for (exit, (found, expected)) in (1..).zip(found.iter().zip(expected)) {
                    let difference = (found - expected).abs() / first;
                    assert!(
                        difference < tolerance,
                        "d_kv {d_kv}, {precision:?}, step {step}, exit {exit}: {found}, not {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_network_learns_with_dropout() {
    let (_alone, device, config) = (alone(), device(), t5_config(16));
    tch::set_num_threads(1);
    for precision in [Precision::F32, Precision::Bf16] {
        let losses = losses(&config, device, precision, 0.1);
        let (first, last) = (losses[0][2], losses[losses.len() - 1][2]);
        assert!(last < 0.8 * first, "{precision:?}: the loss goes from {first} to {last}");
    }
}
