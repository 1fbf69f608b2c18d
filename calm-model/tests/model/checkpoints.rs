//! Incomplete, damaged or contradictory checkpoints give one clear error; unusual valid ones can be loaded.

use std::collections::BTreeMap;
use std::path::Path;

use calm_checkpoint::{Model, T5Config};
use calm_model::{Llama, T5, Weights, init, read_safetensors, write_safetensors};
use tch::{Device, Kind, Tensor};

use crate::{beam_cases, checkpoint, damaged, device};

fn copy_of(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(checkpoint(name).join(file), dir.path().join(file)).unwrap();
    }
    dir
}

fn edit_config(dir: &Path, edit: impl Fn(&mut serde_json::Map<String, serde_json::Value>)) {
    let path = dir.join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    edit(config.as_object_mut().unwrap());
    std::fs::write(path, config.to_string()).unwrap();
}

fn edit_weights(dir: &Path, edit: impl Fn(&mut BTreeMap<String, Tensor>)) {
    let path = dir.join("model.safetensors");
    let mut tensors = read_safetensors(&path, Device::Cpu).unwrap();
    edit(&mut tensors);
    write_safetensors(&path, tensors).unwrap();
}

fn load_error(dir: &Path) -> String {
    T5::load(dir, Device::Cpu).err().expect("the checkpoint must be refused").to_string()
}

#[test]
fn a_missing_tensor_is_named_with_its_shape() {
    let dir = copy_of("v1_1");
    edit_weights(dir.path(), |tensors| {
        drop(tensors.remove("decoder.block.2.layer.1.EncDecAttention.k.weight").unwrap());
    });
    let expected = "tensor decoder.block.2.layer.1.EncDecAttention.k.weight of shape [24, 32] is missing";
    assert_eq!(load_error(dir.path()), format!("{}: {expected}", dir.path().display()));
}

#[test]
fn a_wrong_shape_is_named_with_both_shapes() {
    let dir = copy_of("v1_0");
    edit_weights(dir.path(), |tensors| {
        tensors
            .insert("encoder.final_layer_norm.weight".into(), Tensor::ones([7], (Kind::Float, Device::Cpu)));
    });
    let expected = "tensor encoder.final_layer_norm.weight has the shape [7], but config.json asks for [32]";
    assert_eq!(load_error(dir.path()), format!("{}: {expected}", dir.path().display()));
}

#[test]
fn unexpected_tensors_are_reported_and_known_leftovers_are_not() {
    let dir = copy_of("v1_1");
    edit_weights(dir.path(), |tensors| {
        let shared = tensors["shared.weight"].shallow_clone();
        tensors.insert("encoder.embed_tokens.weight".into(), shared.copy());
        tensors.insert("adapter.weight".into(), Tensor::ones([2], (Kind::Float, Device::Cpu)));
    });
    assert_eq!(T5::load(dir.path(), Device::Cpu).unwrap().unexpected(), ["adapter.weight"]);
}

#[test]
fn a_truncated_file_is_refused() {
    let dir = copy_of("v1_1");
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for length in [bytes.len() - 1, bytes.len() / 2, 100, 3, 0] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let message = load_error(dir.path());
        assert!(message.contains("model.safetensors"), "{length} bytes: {message}");
    }
}

#[test]
fn missing_files_are_named() {
    let dir = copy_of("v1_1");
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    assert!(load_error(dir.path()).contains("neither model.safetensors nor"));
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    assert!(load_error(dir.path()).contains("config.json: No such file"));
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    let check = |key: &str, value: serde_json::Value, expected: &str| {
        let dir = copy_of("v1_1");
        edit_config(dir.path(), |config| drop(config.insert(key.to_owned(), value.clone())));
        let message = load_error(dir.path());
        assert!(message.contains(expected), "{key}: {message}");
    };
    check("num_heads", 0.into(), "num_heads is 0");
    check("d_model", "wide".into(), "config.json: d_model: invalid type");
    check(
        "feed_forward_proj",
        "gated-tanh".into(),
        "config.json: feed_forward_proj: unknown variant `gated-tanh`",
    );
    check("relative_attention_num_buckets", 3.into(), "relative_attention_num_buckets is 3");
    check("eos_token_id", 211.into(), "eos_token_id is 211");
}

/// transformers 5 writes `tie_word_embeddings: true` into every file and drops a head that equals the
/// embedding.
///
/// So the file decides what the head is, and `scale_decoder_outputs` whether it is scaled.
#[test]
fn the_head_follows_the_file_and_its_scale_the_newer_key() {
    let config = T5Config::load(&checkpoint("v1_1").join("config.json")).unwrap();
    let scale = |tied: bool, scaled: Option<bool>| {
        T5Config { tie_word_embeddings: tied, scale_decoder_outputs: scaled, ..config.clone() }.head_scale()
    };
    let inverse_root = 32f64.powf(-0.5);
    assert_eq!(scale(false, None), 1.0);
    assert_eq!(scale(true, None), inverse_root);
    assert_eq!(scale(true, Some(false)), 1.0);
    assert_eq!(scale(false, Some(true)), inverse_root);

    let dir = copy_of("v1_1");
    edit_config(dir.path(), |config| drop(config.insert("tie_word_embeddings".into(), true.into())));
    let head = |dir: &Path| T5::load(dir, Device::Cpu).unwrap().head().copy();
    let stored = read_safetensors(&dir.path().join("model.safetensors"), Device::Cpu).unwrap();
    assert_eq!(head(dir.path()), stored["lm_head.weight"]);
    edit_weights(dir.path(), |tensors| drop(tensors.remove("lm_head.weight")));
    assert_eq!(head(dir.path()), stored["shared.weight"]);
}

#[test]
fn shards_and_half_precision_load_like_one_file() {
    let dir = copy_of("v1_1");
    let tensors = read_safetensors(&dir.path().join("model.safetensors"), Device::Cpu).unwrap();
    let expected = T5::load(dir.path(), Device::Cpu).unwrap().head().copy();
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (i, (name, tensor)) in tensors.into_iter().enumerate() {
        let (shard, file) =
            if i % 2 == 0 { (&mut first, "a.safetensors") } else { (&mut second, "b.safetensors") };
        map.insert(name.clone(), file.into());
        shard.push((name, tensor.to_kind(Kind::BFloat16)));
    }
    write_safetensors(&dir.path().join("a.safetensors"), first).unwrap();
    write_safetensors(&dir.path().join("b.safetensors"), second).unwrap();
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let model = T5::load(dir.path(), Device::Cpu).unwrap();
    assert_eq!(model.head(), &expected.to_kind(Kind::BFloat16).to_kind(Kind::Float));
    std::fs::remove_file(dir.path().join("b.safetensors")).unwrap();
    assert!(load_error(dir.path()).contains("b.safetensors: No such file"));
}

#[test]
fn random_weights_depend_on_the_seed_alone_and_make_a_complete_model() {
    let config = T5Config::load(&checkpoint("v1_1").join("config.json")).unwrap();
    let weights = |seed| init::random_weights(&config, seed);
    let tensor = |weights: &Weights| weights.root().tensor("shared.weight", &[211, 32]).unwrap();
    assert_eq!(tensor(&weights(3)), tensor(&weights(3)));
    assert_ne!(tensor(&weights(3)), tensor(&weights(4)));
    assert_eq!(T5::new(&config, &weights(3)).unwrap().unexpected(), &[] as &[String]);
}

#[test]
fn devices_that_do_not_exist_are_refused_in_words() {
    device();
    let message = |name: &str| calm_model::device::init(Some(name)).err().map(|error| error.to_string());
    assert_eq!(message("cpu"), None);
    assert_eq!(message("gpu").unwrap(), "unknown device `gpu`: expected cpu, cuda or cuda:N");
    if !tch::Cuda::is_available() {
        assert!(message("cuda:0").unwrap().starts_with("CUDA is not available"));
    }
}

fn load(folder: &Path) -> Result<Box<dyn Model>, String> {
    let model = T5::load(folder, device()).map_err(|error| error.to_string())?;
    Ok(Box::new(model))
}

fn load_llama(folder: &Path) -> Result<Box<dyn Model>, String> {
    let model = Llama::load(folder, device()).map_err(|error| error.to_string())?;
    Ok(Box::new(model))
}

#[test]
fn tables_of_the_embedding_are_those_of_transformers() {
    damaged::check_embeddings(&load);
}

#[test]
fn beam_searches_are_those_of_transformers() {
    beam_cases::check_beams(&load);
}

#[test]
fn weights_that_cannot_be_decoded_with_are_refused() {
    damaged::check_refusals(&damaged::T5, &load);
    damaged::check_refusals(&damaged::LLAMA, &load_llama);
    // libtorch would round them.
    let dir = copy_of("v1_1");
    edit_weights(dir.path(), |tensors| {
        let shared = tensors["shared.weight"].to_kind(Kind::Int64);
        tensors.insert("shared.weight".into(), shared);
    });
    assert!(load_error(dir.path()).contains("tensor shared.weight has the type I64; weights must be F32"));
}

#[test]
fn numbers_that_become_too_large_are_an_error_whatever_the_policy() {
    damaged::check_too_large(&damaged::T5, &load);
    damaged::check_too_large(&damaged::LLAMA, &load_llama);
}
