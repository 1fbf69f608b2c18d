//! Measures steps of multi-exit training with more and more exits.
//!
//! It prints target tokens a second, the share of the machine's rate of matrix products that they reach, and
//! the memory that they need. For comparison it also takes the plain loss, with all logits of all exits at
//! once.
//!
//!     cargo bench -p calm-train --bench training [-- SHAPE [ROWS [SOURCE_TOKENS [TARGET_TOKENS]]]]
//!
//! SHAPE is debian-en-fr (the default), bundled or t5-v1_1-small.

#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use calm_checkpoint::{SpecialTokens, T5Config};
use calm_model::{T5, TeacherForcing, init};
use calm_train::batches::{Batch, FrameTokens, collate};
use calm_train::objective::exits_of_step;
use calm_train::optimizer::Optimizer;
use calm_train::parameters::{Gradients, Parameters};
use calm_train::step::{StepConfig, batch_gradient};
use calm_train::tokens::TokenPair;
use calm_train::{ExitWeights, ModelConfig, ObjectiveConfig, OptimizerConfig, Precision};
use tch::{Device, Kind, Tensor};

/// Duration of each case, which takes at least three steps.
const TIME: Duration = Duration::from_secs(4);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let shape = arguments.first().map_or("debian-en-fr", String::as_str);
    let number =
        |index: usize, default| arguments.get(index).map_or(default, |text| text.parse().expect("a number"));
    let t5_config = t5_config(shape);
    let batch = batch(&t5_config, number(1, 64), number(2, 32), number(3, 30));
    let peak = matmul_rate();
    println!("{shape}, {} target tokens a step, {} threads", batch.target_tokens, tch::get_num_threads());
    println!("matrix products of 2048 x 2048: {:.0} GFLOP/s", peak / 1e9);
    println!(
        "{:<24} {:>9} {:>12} {:>14} {:>11}",
        "exits of a step", "ms", "tokens/s", "of the rate", "peak MiB"
    );

    let layers = t5_config.decoder_layers() as usize;
    let cases = [
        ("last", ExitWeights::Last, None),
        ("last + 1", ExitWeights::Linear, Some(1)),
        ("last + 3", ExitWeights::Linear, Some(3)),
        ("all", ExitWeights::Linear, None),
    ];
    for (name, exit_weights, sampled_exits) in cases {
        let objective =
            ObjectiveConfig { exit_weights, sampled_exits, label_smoothing: 0.1, ..Default::default() };
        let exits = exits_of_step(&objective, layers, 1, 1).len();
        let config =
            StepConfig { t5_config: &t5_config, precision: Precision::F32, objective: &objective, seed: 1 };
        let flops = step_flops(&t5_config, &batch, exits);
        report(name, &t5_config, &batch, flops, peak, |parameters, draw| {
            batch_gradient(&config, parameters, &batch, draw, batch.target_tokens)
                .expect("the network's own weights")
                .gradients
        });
    }
    let flops = step_flops(&t5_config, &batch, layers);
    report("all, plain loss", &t5_config, &batch, flops, peak, |parameters, _| {
        plain_gradient(&t5_config, parameters, &batch)
    });
}

/// Computes the loss as one writes it down: autograd keeps the logits of every exit until the backward pass.
fn plain_gradient(t5_config: &T5Config, parameters: &Parameters, batch: &Batch) -> Gradients {
    let model = T5::new(t5_config, &parameters.cast(Kind::Float)).expect("the network's own weights");
    let Batch { sources, source_lengths, decoder_inputs, .. } = batch;
    let dropout = model.dropout(0.1, sources, decoder_inputs, 0);
    let states =
        model.decoder_states(&TeacherForcing { sources, source_lengths, decoder_inputs, dropout: &dropout });
    let layers = states.len() as f64;
    let losses: Vec<Tensor> = (1..)
        .zip(&states)
        .map(|(layer, state)| {
            let inputs = model.head_input(state).flatten(0, 1).index_select(0, &batch.positions);
            let logits = inputs.linear(model.head(), None::<&Tensor>);
            let loss =
                logits.cross_entropy_loss::<Tensor>(&batch.targets, None, tch::Reduction::Mean, -100, 0.1);
            loss * (f64::from(layer) / (layers * (layers + 1.0) / 2.0))
        })
        .collect();
    parameters.gradients(&losses)
}

fn report(
    name: &str,
    t5_config: &T5Config,
    batch: &Batch,
    flops: f64,
    peak: f64,
    gradient: impl Fn(&Parameters, u64) -> Gradients,
) {
    let weights = init::random_weights(t5_config, 1);
    let parameters = Parameters::of_network(t5_config, &weights, Device::Cpu).expect("its own weights");
    let mut optimizer = Optimizer::new(&OptimizerConfig::default(), &parameters);
    let mut times = Vec::new();
    let mut draw = 0;
    let mut step = || {
        draw += 1;
        let gradients = gradient(&parameters, draw);
        let _ = optimizer.step(&parameters, &gradients, 1e-4);
    };
    step();
    reset_peak_memory();
    let start = Instant::now();
    while times.len() < 3 || start.elapsed() < TIME {
        let before = Instant::now();
        step();
        times.push(before.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    println!(
        "{name:<24} {:>9.0} {:>12.0} {:>13.0}% {:>11}",
        1e3 * median,
        batch.target_tokens as f64 / median,
        100.0 * flops / median / peak,
        peak_memory_mib().map_or("?".to_owned(), |mib| mib.to_string()),
    );
}

/// Counts the floating-point operations of a step's products with weights.
///
/// There are two for each weight and token forward, and four backward.
fn step_flops(config: &T5Config, batch: &Batch, exits: usize) -> f64 {
    let inputs = if config.feed_forward_proj.is_gated() { 2 } else { 1 };
    let attention = 4 * config.d_model * config.inner();
    let feed_forward = (inputs + 1) * config.d_model * config.d_ff;
    let encoder = config.num_layers * (attention + feed_forward);
    let decoder = config.decoder_layers() * (3 * attention / 2 + feed_forward);
    let cross_kv = config.decoder_layers() * attention / 2;
    let head = exits as i64 * config.vocab_size * config.d_model;
    let (sources, targets) = (batch.sources.numel() as i64, batch.decoder_inputs.numel() as i64);
    6.0 * (sources * (encoder + cross_kv) + targets * decoder + batch.target_tokens as i64 * head) as f64
}

fn matmul_rate() -> f64 {
    const SIZE: i64 = 2048;
    let matrix = Tensor::randn([SIZE, SIZE], (Kind::Float, Device::Cpu));
    let _ = matrix.matmul(&matrix);
    let seconds = (0..5).map(|_| {
        let start = Instant::now();
        let _ = matrix.matmul(&matrix);
        start.elapsed().as_secs_f64()
    });
    2.0 * (SIZE as f64).powi(3) / seconds.fold(f64::INFINITY, f64::min)
}

fn t5_config(shape: &str) -> T5Config {
    let (model, vocab_size) = match shape {
        "debian-en-fr" => ([192, 48, 384, 4, 5, 8], 8192),
        "bundled" => ([256, 64, 1024, 4, 8, 8], 8192),
        "t5-v1_1-small" => ([512, 64, 1024, 6, 8, 8], 32128),
        other => panic!("no shape is called {other}"),
    };
    let [d_model, d_kv, d_ff, num_heads, num_layers, num_decoder_layers] = model;
    let tie_word_embeddings = shape != "t5-v1_1-small";
    let model =
        ModelConfig { d_model, d_kv, d_ff, num_heads, num_layers, num_decoder_layers, tie_word_embeddings };
    model.t5_config(vocab_size, SpecialTokens { pad: 0, end: 1 })
}

fn batch(config: &T5Config, rows: usize, source: usize, target: usize) -> Batch {
    let token = |i: usize| 2 + (i * 7919 % (config.vocab_size as usize - 2)) as u32;
    let pairs: Vec<TokenPair> = (0..rows)
        .map(|row| TokenPair {
            source: (0..source).map(|i| token(row * source + i)).collect(),
            target: (0..target).map(|i| token(row * target + i + 1)).collect(),
        })
        .collect();
    collate(&pairs, FrameTokens { start: 0, pad: 0 })
}

/// Linux forgets the largest size of a process when 5 is written there.
fn reset_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak_memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}
