//! Checkpoints that are made, kept, damaged.

use std::path::Path;

use calm_checkpoint::{LoadOptions, Model, T5Config};
use calm_core::{Backbone, DecodeOptions, Full, Generation, decode};
use calm_cpu::{T5, WeightType, Weights};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

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
    LoadOptions { weight_type, threads: 2, ..LoadOptions::default() }
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
        let made = T5::new(&config, &weights, &options(weight_type));
        let loaded = T5::load(folder.path(), &options(weight_type));
        let (made, loaded) = (made.unwrap(), loaded.unwrap());
        assert_eq!(loaded.config(), &config);
        assert_eq!(loaded.unexpected(), &[] as &[String]);
        assert_eq!((made.fingerprint().len(), loaded.fingerprint().len()), (0, rounding(&loaded).len() + 64));
        assert_eq!(generate(&made), generate(&loaded), "{weight_type:?}");
    }
    assert_eq!(T5::load(folder.path(), &options(None)).unwrap().device(), "cpu f32");
    let other = Weights::random(&config, 8);
    let other = T5::new(&config, &other, &LoadOptions::default()).unwrap();
    assert_ne!(
        generate(&other).tokens,
        generate(&T5::new(&config, &weights, &LoadOptions::default()).unwrap()).tokens
    );
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

/// The part of a fingerprint that says how weights were rounded, which is empty where they are the file's.
fn rounding(model: &T5) -> &str {
    let fingerprint = model.fingerprint();
    &fingerprint[..fingerprint.len() - 64]
}

/// The same tensors with the upper halves of their numbers, which is what bf16 is, under a type of two bytes.
fn to_bf16(folder: &Path) {
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = file
        .iter()
        .map(|(name, view)| {
            let upper = view.data().chunks_exact(4).flat_map(|number| [number[2], number[3]]);
            (name.to_owned(), view.shape().to_vec(), upper.collect())
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &path).unwrap();
}

/// What was certified with the weights of the file says nothing about rounded ones, nor the reverse. Weights
/// that are not rounded are the same model, whatever type they have in memory.
#[test]
fn a_fingerprint_tells_rounded_weights_from_those_of_the_file() {
    let (config, folder) = (tiny(), tempfile::tempdir().unwrap());
    Weights::random(&config, 7).save(folder.path(), &config).unwrap();
    let load = |weight_type| T5::load(folder.path(), &options(weight_type)).unwrap();
    let roundings = || {
        let types = [None, Some(WeightType::F32), Some(WeightType::Bf16), Some(WeightType::Int8)];
        types.map(|weight_type| rounding(&load(weight_type)).to_owned())
    };
    assert_eq!(roundings(), ["", "", "bf16-", "int8-"]);
    let exact = load(None).fingerprint().to_owned();
    assert!(load(Some(WeightType::Bf16)).fingerprint().ends_with(&exact));

    to_bf16(folder.path());
    assert_eq!(roundings(), ["", "", "", "int8-"]);
    assert_eq!(load(None).device(), "cpu bf16");
    assert_eq!(generate(&load(Some(WeightType::F32))), generate(&load(Some(WeightType::Bf16))));
}

#[test]
fn a_layer_reads_fewer_bytes_in_a_narrower_type() {
    let config = T5Config { d_model: 64, d_kv: 32, d_ff: 128, ..tiny() };
    let weights = Weights::random(&config, 1);
    let bytes = |weight_type| {
        T5::new(&config, &weights, &options(Some(weight_type))).unwrap().shape().bytes.layer as usize
    };
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
    assert_eq!(complaint(), format!("{}: {expected}", folder.path().display()));
    T5Config { num_layers: 3, ..config.clone() }.save(folder.path()).unwrap();
    assert!(complaint().contains(": tensor encoder.block.2."), "{}", complaint());
    config.save(folder.path()).unwrap();
    let file = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert!(complaint().contains("model.safetensors is not a valid safetensors file"), "{}", complaint());
}

/// A program that maps a file is killed when the file is cut off, and computes something else when it is
/// written anew.
#[test]
fn a_model_stays_what_it_is_when_its_file_is_overwritten() {
    let (config, folder) = (tiny(), tempfile::tempdir().unwrap());
    Weights::random(&config, 7).save(folder.path(), &config).unwrap();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for &weight_type in WeightType::ALL {
        let model = T5::load(folder.path(), &options(Some(weight_type))).unwrap();
        let expected = generate(&model);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(0).unwrap();
        assert_eq!(generate(&model), expected);
        // In place, as `cp` does.
        std::fs::write(&path, vec![0; bytes.len()]).unwrap();
        assert_eq!(generate(&model), expected);
        std::fs::write(&path, &bytes).unwrap();
    }
}
