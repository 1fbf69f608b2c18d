//! Measures a step of each optimiser over the 21 million parameters of a T5, with and without their average.

// A benchmark that fails has nothing to report but the panic.
#![allow(clippy::unwrap_used, missing_docs)]

use calm_checkpoint::T5Config;
use calm_model::init;
use calm_train::optimizer::Optimizer;
use calm_train::parameters::Parameters;
use calm_train::{OptimizerConfig, OptimizerKind};
use criterion::{Criterion, criterion_group, criterion_main};
use tch::{Device, Kind};

fn config() -> T5Config {
    let shape = T5Config {
        d_model: 256,
        d_kv: 64,
        num_heads: 4,
        d_ff: 1024,
        vocab_size: 8192,
        tie_word_embeddings: true,
        ..T5Config::published("t5-v1_1-small").unwrap()
    };
    T5Config { num_layers: 8, num_decoder_layers: Some(8), ..shape }
}

fn steps(criterion: &mut Criterion) {
    tch::set_num_threads(1);
    let weights = init::random_weights(&config(), 0);
    let parameters = Parameters::of_network(&config(), &weights, Device::Cpu).unwrap();
    let products = parameters.cast(Kind::Float);
    let products = products.iter().map(|(_, tensor)| tensor * tensor.detach().randn_like());
    let gradients = parameters.gradients(&products.collect::<Vec<_>>());
    let plain = OptimizerConfig::default();
    let adafactor = OptimizerConfig { kind: OptimizerKind::Adafactor, ..plain.clone() };
    let cases = [
        ("adamw, average", OptimizerConfig { ema_decay: Some(0.999), ..plain.clone() }),
        ("adamw", plain),
        ("adafactor, momentum", OptimizerConfig { beta1: Some(0.9), ..adafactor.clone() }),
        ("adafactor", adafactor),
    ];
    for (name, config) in cases {
        let mut optimizer = Optimizer::new(&config, &parameters);
        criterion.bench_function(name, |bencher| {
            // The step moves no further than rounding, so that all cases step from the same parameters.
            bencher.iter(|| optimizer.step(&parameters, &gradients, 1e-9));
        });
    }
}

criterion_group! { name = benches; config = Criterion::default().sample_size(20); targets = steps }
criterion_main!(benches);
