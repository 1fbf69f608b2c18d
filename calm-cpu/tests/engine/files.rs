//! Checkpoints that are made, kept, damaged.

use calm_checkpoint::T5Config;
use calm_core::{Backbone, DecodeOptions, Generation, Policy, Propagation, decode};
use calm_cpu::{Options, T5, WeightType, Weights};

fn tiny() -> T5Config {
    T5Config {
        d_model: 24,
        d_kv: 12,
        d_ff: 40,
        num_layers: 2,
        num_decoder_layers: Some(3),
        num_heads: 2,
        vocab_size: 97,
        ..T5Config::published("t5-v1_1-small").unwrap()
    }
}

fn generate(model: &T5) -> Generation {
    let encoded = model.encode(&[&[5, 17, 42, 1]]).unwrap();
    let options = DecodeOptions { max_tokens: 40, propagation: Propagation::Lazy };
    let mut generation = decode(model, &encoded, 1, &Policy::Full, &options).unwrap().swap_remove(0);
    generation.seconds = 0.0;
    generation
}

#[test]
fn random_weights_are_the_same_after_they_were_kept() {
    let (config, folder) = (tiny(), tempfile::tempdir().unwrap());
    let weights = Weights::random(&config, 7);
    weights.save(folder.path(), &config).unwrap();
    for &weight_type in WeightType::ALL {
        let options = Options { weight_type: Some(weight_type), threads: 2 };
        let (made, loaded) = (T5::new(&config, &weights, &options), T5::load(folder.path(), &options));
        let (made, loaded) = (made.unwrap(), loaded.unwrap());
        assert_eq!(loaded.config(), &config);
        assert_eq!(loaded.unexpected(), &[] as &[String]);
        assert_eq!((made.fingerprint().len(), loaded.fingerprint().len()), (0, 64));
        assert_eq!(generate(&made), generate(&loaded), "{}", weight_type.name());
    }
    assert_eq!(T5::load(folder.path(), &Options::default()).unwrap().weight_type(), WeightType::F32);
    let other = Weights::random(&config, 8);
    let options = Options { weight_type: None, threads: 1 };
    let other = T5::new(&config, &other, &options).unwrap();
    assert_ne!(generate(&other).tokens, generate(&T5::new(&config, &weights, &options).unwrap()).tokens);
}

#[test]
fn a_layer_reads_fewer_bytes_in_a_narrower_type() {
    let config = T5Config { d_model: 64, d_kv: 32, d_ff: 96, ..tiny() };
    let weights = Weights::random(&config, 1);
    let bytes = |weight_type| {
        let options = Options { weight_type: Some(weight_type), threads: 1 };
        T5::new(&config, &weights, &options).unwrap().layer_bytes()
    };
    let numbers = 6 * 64 * 64 + 3 * 64 * 96;
    assert_eq!(
        [WeightType::F32, WeightType::Bf16, WeightType::Int8].map(bytes),
        [4 * numbers, 2 * numbers, numbers]
    );
}

#[test]
fn what_is_wrong_with_a_checkpoint_is_said() {
    let (config, folder) = (tiny(), tempfile::tempdir().unwrap());
    let complaint = || T5::load(folder.path(), &Options::default()).err().unwrap().to_string();
    assert!(complaint().contains("config.json: No such file"), "{}", complaint());
    config.save(folder.path()).unwrap();
    assert!(complaint().contains("holds neither model.safetensors nor"), "{}", complaint());
    Weights::random(&config, 1).save(folder.path(), &config).unwrap();
    T5Config { d_ff: 41, ..config.clone() }.save(folder.path()).unwrap();
    let expected = "tensor encoder.block.0.layer.1.DenseReluDense.wi_0.weight has the shape [40, 24], but config.json asks for [41, 24]";
    assert_eq!(complaint(), expected);
    T5Config { num_layers: 3, ..config.clone() }.save(folder.path()).unwrap();
    assert!(complaint().starts_with("tensor encoder.block.2."), "{}", complaint());
    config.save(folder.path()).unwrap();
    let file = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert!(complaint().contains("model.safetensors is not a valid safetensors file"), "{}", complaint());
}
