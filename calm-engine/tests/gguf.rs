//! GGUF files are the same network on every engine.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "libtorch")]

use std::path::Path;

use calm_checkpoint::EngineKind;
use calm_core::{DecodeOptions, Full, Token};
use calm_engine::decoding::decode_sources;
use calm_engine::engine::{Engine, EngineOptions};

#[test]
fn engines_agree_on_outputs_and_fingerprints() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../calm-model/tests/reference");
    let sources: Vec<Vec<Token>> =
        (0..8).map(|i| (3..4 + 5 * (i + 1)).map(|n| 3 + n * (7 + i) % 200).collect()).collect();
    for file in FILES {
        let path = folder.join(file);
        let load = |kind| {
            let device = Some("cpu".to_owned());
            let options = EngineOptions { kind: Some(kind), device, ..EngineOptions::default() };
            Engine::load(&path, &options.divide(1, 1)).unwrap()
        };
        let [mut cpu, mut libtorch] = [EngineKind::Cpu, EngineKind::Libtorch].map(load);
        assert_eq!(cpu.model().fingerprint(), libtorch.model().fingerprint(), "{file}");
        let [expected, found] = [&mut cpu, &mut libtorch].map(|engine| {
            let options = DecodeOptions::new(24);
            let generations = decode_sources(&mut engine.models, &sources, 3, &Full, &options, None).unwrap();
            generations.into_iter().map(|generation| generation.tokens).collect::<Vec<_>>()
        });
        assert_eq!(found, expected, "{file}");
    }
}

const FILES: [&str; 10] = [
    "llama_gqa_tied/model-F32.gguf",
    "llama_gqa_tied/model-F16.gguf",
    "llama_gqa_tied/model-Q4_0.gguf",
    "llama_gqa_tied/model-Q4_1.gguf",
    "llama_gqa_tied/model-Q5_0.gguf",
    "llama_gqa_tied/model-Q5_1.gguf",
    "llama_gqa_tied/model-Q8_0.gguf",
    "v1_0/model-F32.gguf",
    "v1_0/model-Q8_0.gguf",
    "v1_1/model-F32.gguf",
];
