use std::collections::BTreeMap;

use calm_model::Weights;
use calm_train::OptimizerConfig;
use calm_train::optimizer::AdamW;
use serde::Deserialize;
use tch::{Kind, Tensor};

#[derive(Deserialize)]
struct Golden {
    config: OptimizerConfig,
    start: Vec<f32>,
    steps: Vec<GoldenStep>,
}

#[derive(Deserialize)]
struct GoldenStep {
    learning_rate: f64,
    gradient: Vec<f32>,
    norm: f64,
    parameters: Vec<f64>,
}

fn goldens() -> Vec<Golden> {
    tch::set_num_threads(1);
    serde_json::from_str(include_str!("../golden/adamw.json")).unwrap()
}

/// With an absolute learning rate.
fn golden() -> Golden {
    goldens().swap_remove(0)
}

fn split(values: &[f32]) -> [(&'static str, Tensor); 2] {
    let (matrix, vector) = values.split_at(6);
    [("matrix", Tensor::from_slice(matrix).view([2, 3])), ("vector", Tensor::from_slice(vector))]
}

fn weights(values: &[f32]) -> Weights {
    let tensors = split(values).map(|(name, tensor)| (name.to_owned(), tensor.set_requires_grad(true)));
    Weights::new(BTreeMap::from(tensors))
}

fn values(weights: &Weights) -> Vec<f32> {
    let tensors = weights.iter().map(|(_, tensor)| Vec::<f32>::try_from(tensor.detach().view(-1)).unwrap());
    tensors.flatten().collect()
}

/// Sets the gradient through autograd: that of sum(g * p) is g.
fn step(optimizer: &mut AdamW, weights: &Weights, gradient: &[f32], learning_rate: f64) -> f64 {
    let products: Vec<Tensor> = weights
        .iter()
        .zip(split(gradient))
        .map(|((_, parameter), (_, gradient))| (parameter * gradient).sum(Kind::Float))
        .collect();
    Tensor::stack(&products, 0).sum(Kind::Float).backward();
    optimizer.step(weights, learning_rate).double_value(&[])
}

#[test]
fn steps_are_those_of_the_textbook() {
    let goldens = goldens();
    assert_eq!(goldens.len(), 2);
    for golden in goldens {
        let weights = weights(&golden.start);
        let mut optimizer = AdamW::new(&golden.config, &weights);
        for (number, expected) in (1..).zip(&golden.steps) {
            let norm = step(&mut optimizer, &weights, &expected.gradient, expected.learning_rate);
            assert!((norm - expected.norm).abs() < 1e-5, "step {number}: norm {norm}, not {}", expected.norm);
            for (found, expected) in values(&weights).iter().zip(&expected.parameters) {
                assert!(
                    (f64::from(*found) - expected).abs() < 2e-6,
                    "step {number}: {found}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn only_matrices_decay() {
    let Golden { config, start, .. } = golden();
    let weights = weights(&start);
    let mut optimizer = AdamW::new(&config, &weights);
    assert_eq!(step(&mut optimizer, &weights, &[0.0; 9], 0.5), 0.0);
    let decayed = 1.0 - 0.5 * config.weight_decay as f32;
    for (index, (found, start)) in values(&weights).iter().zip(&start).enumerate() {
        let expected = if index < 6 { start * decayed } else { *start };
        assert!((found - expected).abs() < 1e-7, "{index}: {found}, not {expected}");
    }
}

#[test]
fn a_step_clears_the_gradients() {
    let Golden { config, start, steps } = golden();
    let weights = weights(&start);
    let mut optimizer = AdamW::new(&config, &weights);
    let first = step(&mut optimizer, &weights, &steps[0].gradient, 0.1);
    assert_eq!(first, step(&mut optimizer, &weights, &steps[0].gradient, 0.1));
}

#[test]
fn a_restored_optimizer_goes_on_bit_for_bit() {
    let Golden { config, start, steps } = golden();
    let (before, after) = steps.split_at(4);
    let straight = weights(&start);
    let mut optimizer = AdamW::new(&config, &straight);
    for expected in before {
        step(&mut optimizer, &straight, &expected.gradient, expected.learning_rate);
    }
    let mut saved: BTreeMap<String, Tensor> =
        optimizer.state().map(|(name, tensor)| (name, tensor.copy())).collect();
    let resumed = weights(&values(&straight));
    let mut restored = AdamW::new(&config, &resumed);
    restored.restore(&mut saved, before.len() as u64).unwrap();
    assert!(saved.is_empty());
    for expected in after {
        step(&mut optimizer, &straight, &expected.gradient, expected.learning_rate);
        step(&mut restored, &resumed, &expected.gradient, expected.learning_rate);
        assert_eq!(values(&straight), values(&resumed));
    }
}

#[test]
fn moments_that_do_not_fit_are_named() {
    let Golden { config, start, .. } = golden();
    let weights = weights(&start);
    let mut optimizer = AdamW::new(&config, &weights);
    let state = || -> BTreeMap<String, Tensor> { AdamW::new(&config, &weights).state().collect() };
    let mut missing = state();
    missing.remove("adam.square.matrix");
    assert_eq!(optimizer.restore(&mut missing, 1), Err("adam.square.matrix".to_owned()));
    let mut reshaped = state();
    reshaped.insert("adam.mean.vector".to_owned(), Tensor::from_slice(&[1f32]));
    assert_eq!(optimizer.restore(&mut reshaped, 1), Err("adam.mean.vector".to_owned()));
}
