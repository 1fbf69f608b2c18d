use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use calm_checkpoint::{
    GgufNames, LlamaConfig, NetworkConfig, RopeScaling, T5Config, gguf_config, halves_of_pairs,
};
use calm_gguf::{Gguf, TensorType};
use safetensors::SafeTensors;

use crate::gguf_tokenizers::{opened, smollm2};
use crate::made_file::{BOOL, STRING, U32, header, info, pair, string, with_data};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gguf").join(name)
}

fn reference(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../calm-model/tests/reference").join(version)
}

fn values(kind: TensorType, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / kind.block_bytes() * kind.block_len()];
    kind.dequantise(bytes, &mut values);
    values
}

/// Compares names, shapes and numbers with those of the file that the GGUF file was made of.
fn check_tensors(gguf: &Gguf, config: &dyn NetworkConfig, safetensors: &Path) {
    let bytes = std::fs::read(safetensors).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let names = GgufNames::of(gguf).unwrap();
    let mut found = BTreeSet::new();
    for tensor in gguf.tensors() {
        let Some(name) = names.hugging_face(&tensor.name) else { continue };
        let expected = reference.tensor(&name).unwrap();
        assert_eq!(tensor.shape, expected.shape(), "{name}");
        let kind = gguf.tensor_type(tensor).unwrap();
        let stored = gguf.bytes(tensor).to_vec();
        let ordered = match names.paired_heads(&tensor.name) {
            Some(heads) => halves_of_pairs(&stored, kind.row_bytes(tensor.shape[1]), heads),
            None => stored,
        };
        let expected = values(TensorType::F32, expected.data()).into_iter();
        let rounded =
            |value: f32| if kind == TensorType::F16 { half::f16::from_f32(value).to_f32() } else { value };
        assert_eq!(values(kind, &ordered), expected.map(rounded).collect::<Vec<_>>(), "{name}");
        found.insert(name);
    }
    let needed: BTreeSet<String> = config.parameters().into_iter().map(|parameter| parameter.name).collect();
    assert_eq!(found, needed);
}

#[test]
fn t5s_have_the_configuration_and_tensors_they_were_made_of() {
    for version in ["v1_0", "v1_1"] {
        let gguf = Gguf::open(&reference(version).join("model-F32.gguf")).unwrap();
        let config = T5Config::of_gguf(&gguf).unwrap();
        let mut expected = T5Config::load(&reference(version).join("config.json")).unwrap();
        assert_eq!(config.head_scale(), expected.head_scale());
        assert_eq!(config.end_tokens(), expected.end_tokens());
        // What transformers 5 writes beside: the scale by a key of its own, and the ends of outputs again.
        expected.tie_word_embeddings = config.tie_word_embeddings;
        expected.scale_decoder_outputs = None;
        expected.generation_eos_token_id = None;
        assert_eq!(config, expected);
        check_tensors(&gguf, &config, &reference(version).join("model.safetensors"));
        assert_eq!(gguf_config(&gguf).unwrap().parameters(), config.parameters());
    }
}

#[test]
fn llamas_have_the_configuration_and_tensors_they_were_made_of() {
    let gguf = Gguf::open(&golden("llama.gguf")).unwrap();
    let config = LlamaConfig::of_gguf(&gguf).unwrap();
    let expected = LlamaConfig {
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        head_dim: 8,
        vocab_size: 40,
        max_position_embeddings: 131_072,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        rope_scaling: RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        },
        tie_word_embeddings: false,
        bos_token_id: Some(1),
        eos_token_id: vec![2],
        generation_eos_token_id: Some(vec![2, 3]),
    };
    assert_eq!(config, expected);
    check_tensors(&gguf, &config, &golden("llama.safetensors"));
    assert_eq!(gguf_config(&gguf).unwrap().parameters(), config.parameters());
}

/// A Llama without weights but one row of the embedding for each of four tokens, with some keys added or
/// changed.
fn made_up(changes: &[(&str, u32, Vec<u8>)]) -> Vec<u8> {
    let number = |number: u32| number.to_le_bytes().to_vec();
    let mut pairs = vec![
        ("general.architecture", STRING, string("llama")),
        ("llama.block_count", U32, number(1)),
        ("llama.context_length", U32, number(64)),
        ("llama.embedding_length", U32, number(8)),
        ("llama.feed_forward_length", U32, number(16)),
        ("llama.attention.head_count", U32, number(2)),
        ("llama.attention.layer_norm_rms_epsilon", F32, 1e-6_f32.to_le_bytes().to_vec()),
        ("tokenizer.ggml.eos_token_id", U32, number(2)),
    ];
    for change in changes {
        pairs.retain(|(key, ..)| *key != change.0);
        // A change to nothing leaves the key out.
        pairs.extend((!change.2.is_empty()).then(|| change.clone()));
    }
    let count = pairs.len() as u64;
    let pairs = pairs.into_iter().flat_map(|(key, kind, value)| pair(key, kind, &value));
    let bytes = header(3, 1, count).into_iter().chain(pairs);
    with_data(bytes.chain(info("token_embd.weight", &[8, 4], 0, 0)).collect(), 128)
}

const F32: u32 = 6;

#[test]
fn keys_that_are_left_out_have_defaults() {
    let (_folder, gguf) = opened(&made_up(&[]));
    let config = LlamaConfig::of_gguf(&gguf).unwrap();
    assert_eq!((config.num_key_value_heads, config.head_dim, config.rope_theta), (2, 4, 10_000.0));
    assert!(config.tie_word_embeddings && config.rope_scaling == RopeScaling::Default);
    assert_eq!((config.vocab_size, config.end_tokens()), (4, [2].as_slice()));
    let (_folder, gguf) =
        opened(&made_up(&[("llama.rope.scaling.factor", F32, 4_f32.to_le_bytes().to_vec())]));
    assert_eq!(LlamaConfig::of_gguf(&gguf).unwrap().rope_scaling, RopeScaling::Linear { factor: 4.0 });
}

#[test]
fn networks_that_cannot_be_run_are_refused_with_the_reason() {
    let number = |number: u32| number.to_le_bytes().to_vec();
    for (change, expected) in [
        (
            ("general.architecture", STRING, string("qwen2")),
            "FILE: key `general.architecture`: a network that is not implemented: unknown architecture `qwen2`: there \
             are t5 and llama",
        ),
        (("general.architecture", STRING, vec![]), "FILE has no key `general.architecture`"),
        (
            ("split.count", U32, number(3)),
            "FILE: key `split.count`: the model is in 3 files: join them with llama-gguf-split --merge",
        ),
        (("llama.block_count", U32, vec![]), "FILE has no key `llama.block_count`"),
        (("llama.block_count", U32, number(0)), "FILE: num_hidden_layers is 0, but must be at least 1"),
        (
            ("llama.block_count", U32, number(1 << 28)),
            "FILE: num_hidden_layers is 268435456, but must be at most 10000",
        ),
        (
            ("llama.expert_count", U32, number(8)),
            "FILE: key `llama.expert_count`: 8 experts, which are not implemented",
        ),
        (
            ("llama.attention.sliding_window", U32, number(8)),
            "FILE: key `llama.attention.sliding_window`: attention to a window, which is not implemented",
        ),
        (
            ("llama.attention.causal", BOOL, vec![0]),
            "FILE: key `llama.attention.causal`: attention to later tokens, which is not implemented",
        ),
        (
            ("llama.rope.dimension_count", U32, number(2)),
            "FILE: key `llama.rope.dimension_count`: it is 2, but keys are 4 wide",
        ),
        (
            ("llama.rope.scaling.type", STRING, string("yarn")),
            "FILE: key `llama.rope.scaling.type`: `yarn`, which is not implemented: there are none and linear",
        ),
        (
            ("tokenizer.ggml.eos_token_id", U32, vec![]),
            "FILE: eos_token_id names no token, so that no output would end",
        ),
    ] {
        let (_folder, gguf) = opened(&made_up(&[change]));
        let error = gguf_config(&gguf).err().unwrap().to_string();
        assert_eq!(error.replace(&gguf.path().display().to_string(), "FILE"), expected);
    }
    // Its metadata alone have no embedding.
    let (_folder, gguf) = smollm2();
    let error = gguf_config(&gguf).err().unwrap().to_string();
    assert!(error.ends_with("m.gguf: there is no tensor token_embd.weight"), "{error}");
}

#[test]
fn names_of_no_network_stay_as_they_are() {
    let gguf = Gguf::open(&golden("llama.gguf")).unwrap();
    let names = GgufNames::of(&gguf).unwrap();
    for (stored, expected) in [
        ("rope_freqs.weight", None),
        ("blk.1.attn_q.bias", Some("model.layers.1.self_attn.q_proj.bias")),
        ("blk.1.ffn_gate_inp.weight", Some("blk.1.ffn_gate_inp.weight")),
        ("blk.x.attn_q.weight", Some("blk.x.attn_q.weight")),
        ("enc.blk.0.attn_q.weight", Some("enc.blk.0.attn_q.weight")),
        ("calm.classifier.weight", Some("calm.classifier.weight")),
        ("", Some("")),
    ] {
        assert_eq!(names.hugging_face(stored).as_deref(), expected, "{stored}");
    }
    assert_eq!(names.paired_heads("blk.0.attn_q.weight"), Some(6));
    assert_eq!(names.paired_heads("blk.0.attn_k.weight"), Some(2));
    assert_eq!(names.paired_heads("blk.0.attn_v.weight"), None);
    assert_eq!(halves_of_pairs(&[0, 1, 2, 3, 10, 11, 12, 13], 1, 2), [0, 2, 1, 3, 10, 12, 11, 13]);
}
