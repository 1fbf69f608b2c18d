//! SmolLM2 against independent computations, where the model is: `make llm` fetches it.

use std::io::Read;
use std::path::Path;

use calm_checkpoint::LoadOptions;
use calm_core::{Backbone, Entry, Token};
use calm_cpu::Llama;

/// A prompt, and what followed it (tests/llama_cpp/generate.py).
#[derive(serde::Deserialize)]
struct Golden {
    input_ids: Vec<Token>,
    /// llama.cpp's output.
    tokens: Vec<Token>,
    /// The best token after those before it, in float64 with the weights that blocks stand for.
    float64_tokens: Vec<Token>,
}

/// Prompts that are compared: enough for a thousand tokens.
const PROMPTS: usize = 30;

#[test]
fn the_best_tokens_are_those_of_float64() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = root.join("../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !model.is_file() {
        return;
    }
    let model = Llama::load(&model, &LoadOptions { threads: 2, ..LoadOptions::default() }).unwrap();
    let packed = std::fs::File::open(root.join("tests/llama_cpp/golden.jsonl.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    let (mut places, mut others) = (0, 0);
    for line in text.lines().take(PROMPTS) {
        let golden: Golden = serde_json::from_str(line).unwrap();
        let prompt = model.read(&[&golden.input_ids]).unwrap();
        let mut session = prompt.start(golden.tokens.len()).unwrap();
        let entries: Vec<Entry> =
            (0..golden.tokens.len()).map(|position| Entry { row: 0, position }).collect();
        let before = &golden.tokens[..golden.tokens.len() - 1];
        session.embed(&entries, &[&prompt.first_inputs(), before].concat()).unwrap();
        for layer in 1..=model.shape().num_layers {
            session.run_layer(layer, &entries).unwrap();
        }
        let found = session.predict(&entries).unwrap();
        places += found.len();
        others += found.iter().zip(&golden.float64_tokens).filter(|(a, b)| a != b).count();
    }
    // llama.cpp's own tokens differ at 22 of a thousand places.
    assert!(places > 1000 && others <= 2, "{others} of {places} places");
}
