//! Greedy decoding with all layers: tokens a second of whole calls, and the part of the machine's memory rate that they reach.
//!
//!     cargo bench -p calm-cpu --bench decoding [-- THREADS]

use std::time::Instant;

use calm_checkpoint::T5Config;
use calm_core::{Backbone, DecodeOptions, Policy, Propagation, Token, decode};
use calm_cpu::{Options, T5, WeightType, Weights};

const SOURCE_TOKENS: usize = 64;
const NEW_TOKENS: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let threads = arguments.first().map_or(2, |text| text.parse().expect("a number of threads"));
    let config: T5Config = serde_json::from_str(
        r#"{"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "vocab_size": 32128,
            "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false, "eos_token_id": 1}"#,
    )
    .expect("a T5");
    let weights = Weights::random(&config, 1);
    if let Some(dir) = std::env::var_os("SAVE") {
        weights.save(dir.as_ref(), &config).expect("a folder");
    }
    let source: Vec<Token> = (0..SOURCE_TOKENS as u32).map(|i| 2 + i * 7919 % 32000).collect();
    let rate = memory_rate(threads);
    println!("{threads} threads, memory read at {:.1} GB/s", rate / 1e9);
    for weight_type in WeightType::ALL {
        let model =
            T5::new(&config, &weights, &Options { weight_type: Some(weight_type), threads }).expect("a T5");
        let options = DecodeOptions { max_tokens: NEW_TOKENS, propagation: Propagation::Lazy };
        let (mut calls, mut encodes, mut tokens) = (Vec::new(), Vec::new(), 0);
        for _ in 0..7 {
            let start = Instant::now();
            let encoded = model.encode(&[&source]).expect("a source");
            encodes.push(start.elapsed().as_secs_f64());
            let generation =
                decode(&model, &encoded, 1, &Policy::Full, &options).expect("a decoding").swap_remove(0);
            calls.push(start.elapsed().as_secs_f64());
            tokens = generation.tokens.len();
        }
        calls.sort_by(f64::total_cmp);
        encodes.sort_by(f64::total_cmp);
        let (call, encode) = (calls[calls.len() / 2], encodes[encodes.len() / 2]);
        let bytes = model.bytes_per_token() as f64;
        println!(
            "{:<5} {tokens} tokens: {:>6.1} tokens/s, encoder {:.1} ms, {:.3} ms a token, {:.1} MB a token, {:.0} % of the memory rate",
            weight_type.name(),
            tokens as f64 / call,
            1e3 * encode,
            1e3 * (call - encode) / tokens as f64,
            bytes / 1e6,
            100.0 * bytes * tokens as f64 / (call - encode) / rate,
        );
    }
}

/// Bytes a second of threads that add up a block larger than any cache.
fn memory_rate(threads: usize) -> f64 {
    let block: Vec<u64> = (0..32 << 20).collect();
    let mut best = 0.0_f64;
    for _ in 0..5 {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in block.chunks(block.len() / threads) {
                scope.spawn(|| {
                    let mut sums = [0_u64; 32];
                    for chunk in part.chunks_exact(32) {
                        for i in 0..32 {
                            sums[i] = sums[i].wrapping_add(chunk[i]);
                        }
                    }
                    std::hint::black_box(sums)
                });
            }
        });
        best = best.max(8.0 * block.len() as f64 / start.elapsed().as_secs_f64());
    }
    best
}
