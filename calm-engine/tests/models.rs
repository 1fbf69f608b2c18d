//! Which checkpoints are loaded, and what is said of others.

#![allow(clippy::unwrap_used)]

use calm_checkpoint::{EngineKind, T5Config};
use calm_core::{DecodeOptions, Full};
use calm_cpu::Weights;
use calm_engine::decoding::decode_sources;
use calm_engine::engine::{Engine, EngineOptions};

#[test]
fn the_type_in_the_configuration_decides_what_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let config = T5Config {
        d_model: 16,
        d_ff: 16,
        num_layers: 1,
        num_heads: 1,
        vocab_size: 30,
        ..T5Config::published("t5-v1_1-small").unwrap()
    };
    Weights::random(&config, 3).save(folder.path(), &config).unwrap();
    let file = folder.path().join("config.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let written = r#""model_type": "t5""#;
    let options = EngineOptions { kind: Some(EngineKind::Cpu), ..EngineOptions::default() }.divide(3, 2);
    let load = |model_type: &str| {
        assert!(text.contains(written));
        std::fs::write(&file, text.replace(written, model_type)).unwrap();
        Engine::load(folder.path(), &options)
    };
    let outputs = |model_type: &str| {
        let mut engine = load(model_type).unwrap();
        assert_eq!(engine.models.len(), 2);
        let sources = [vec![4, 5, 1], vec![6, 1], vec![7, 8, 9, 1]];
        let generations =
            decode_sources(&mut engine.models, &sources, 2, &Full, &DecodeOptions::new(6), None).unwrap();
        generations.into_iter().map(|generation| generation.tokens).collect::<Vec<_>>()
    };
    let expected = outputs(written);
    assert_eq!(expected.len(), 3);
    assert_eq!(outputs(r#""model_type": "mt5""#), expected);
    // The first checkpoints of T5 have no type.
    assert_eq!(outputs(r#""other": 1"#), expected);
    let error = load(r#""model_type": "bart""#).err().unwrap().to_string();
    let expected = "the cpu engine has no model of the type `bart`: there are t5, mt5, llama";
    assert!(error.ends_with(expected), "{error}");
}
