//! Checkpoints that are made, kept, damaged.

use calm_checkpoint::{LoadOptions, Model, T5Config};
use calm_core::{Backbone, DecodeOptions, Full, Generation, decode};
use calm_cpu::{T5, WeightType, Weights};

pub(crate) fn tiny() -> T5Config {
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

fn options(weight_type: Option<WeightType>) -> LoadOptions {
    LoadOptions { device: None, weight_type, threads: 2 }
}

fn generate(model: &T5) -> Generation {
    let prompt = model.read(&[&[5, 17, 42, 1]]).unwrap();
    let mut generation = decode(&*prompt, &Full, &DecodeOptions::new(40)).unwrap().swap_remove(0);
    generation.seconds = 0.0;
    generation
}

#[test]
fn random_weights_are_the_same_after_they_were_kept() {
    let (config, folder) = (tiny(), tempfile::tempdir().unwrap());
    let weights = Weights::random(&config, 7);
    weights.save(folder.path(), &config).unwrap();
    for &weight_type in WeightType::ALL {
        let weight_type = Some(weight_type);
        let made = T5::new(&config, &weights, weight_type, 2);
        let loaded = T5::load(folder.path(), &options(weight_type));
        let (made, loaded) = (made.unwrap(), loaded.unwrap());
        assert_eq!(loaded.config(), &config);
        assert_eq!(loaded.unexpected(), &[] as &[String]);
        let length = if weight_type == Some(WeightType::Int8) { "int8-".len() + 64 } else { 64 };
        assert_eq!((made.fingerprint().len(), loaded.fingerprint().len()), (0, length));
        assert_eq!(generate(&made), generate(&loaded), "{weight_type:?}");
    }
    assert_eq!(T5::load(folder.path(), &options(None)).unwrap().weight_type(), WeightType::F32);
    let other = Weights::random(&config, 8);
    let other = T5::new(&config, &other, None, 1).unwrap();
    assert_ne!(generate(&other).tokens, generate(&T5::new(&config, &weights, None, 1).unwrap()).tokens);
}

#[test]
fn a_fingerprint_covers_what_measures_keep_beside_the_weights() {
    let (config, folder) = (tiny(), tempfile::tempdir().unwrap());
    Weights::random(&config, 7).save(folder.path(), &config).unwrap();
    let fingerprint = || T5::load(folder.path(), &options(None)).unwrap().fingerprint().to_owned();
    let mut seen = vec![fingerprint()];
    std::fs::write(folder.path().join("notes.txt"), "nothing that is read").unwrap();
    assert_eq!(fingerprint(), seen[0]);
    for (name, content) in
        [("calm.margins.json", "[1]"), ("calm.margins.json", "[2]"), ("calm.a.json", "[2]")]
    {
        std::fs::write(folder.path().join(name), content).unwrap();
        let new = fingerprint();
        assert!(!seen.contains(&new), "{name}");
        seen.push(new);
    }
}

#[test]
fn a_layer_reads_fewer_bytes_in_a_narrower_type() {
    let config = T5Config { d_model: 64, d_kv: 32, d_ff: 128, ..tiny() };
    let weights = Weights::random(&config, 1);
    let bytes =
        |weight_type| T5::new(&config, &weights, Some(weight_type), 1).unwrap().shape().bytes.layer as usize;
    let numbers = 6 * 64 * 64 + 3 * 64 * 128;
    assert_eq!(
        [WeightType::F32, WeightType::Bf16, WeightType::Int8].map(bytes),
        [4 * numbers, 2 * numbers, numbers]
    );
}

#[test]
fn what_is_wrong_with_a_checkpoint_is_said() {
    let (config, folder) = (tiny(), tempfile::tempdir().unwrap());
    let device = LoadOptions { device: Some("cuda".to_owned()), ..options(None) };
    let refused = T5::load(folder.path(), &device).err().unwrap().to_string();
    assert_eq!(refused, "the CPU engine has no device cuda");
    let complaint = || T5::load(folder.path(), &options(None)).err().unwrap().to_string();
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
