//! Configurations of Llama as transformers reads them, and those that are refused.

use std::path::Path;

use calm_checkpoint::{LlamaConfig, NetworkConfig, RopeScaling, load_config};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::golden::folder;

#[derive(Deserialize)]
struct Golden {
    configs: Vec<Case>,
}

/// What transformers makes of a configuration: `tests/golden/generate_llama.py`.
#[derive(Deserialize)]
struct Case {
    written: Value,
    read: Value,
    inverse_frequencies: Vec<f64>,
}

fn golden() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama.json");
    calm_files::read_json::<Golden>(&path).unwrap().configs
}

fn load(config: &Value, generation: Option<Value>) -> Result<LlamaConfig, String> {
    let (config, generation) = (config.to_string(), generation.map(|generation| generation.to_string()));
    let mut files = vec![("config.json", config.as_str())];
    files.extend(generation.as_deref().map(|text| ("generation_config.json", text)));
    let folder = folder(&files);
    let loaded = LlamaConfig::load(&folder.path().join("config.json"));
    loaded.map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "DIR"))
}

/// What a configuration is once it was written and read.
fn saved(config: &LlamaConfig) -> Value {
    let folder = folder(&[]);
    config.save(folder.path()).unwrap();
    let path = folder.path().join("config.json");
    assert_eq!(LlamaConfig::load(&path).unwrap(), *config);
    calm_files::read_json(&path).unwrap()
}

#[test]
fn keys_are_read_as_transformers_reads_them() {
    let cases = golden();
    assert!(cases.len() > 8);
    for Case { written, read, inverse_frequencies } in cases {
        let config = load(&written, None).unwrap();
        let found = saved(&config);
        for (key, expected) in read.as_object().unwrap() {
            assert_eq!(found[key], *expected, "{key} of {written}");
        }
        // transformers computes them in f32.
        let frequencies = config.inverse_frequencies();
        assert_eq!(frequencies.len(), inverse_frequencies.len());
        for (found, expected) in frequencies.iter().zip(inverse_frequencies) {
            assert!((found / expected - 1.0).abs() < 2e-6, "{found} instead of {expected}: {written}");
        }
    }
}

#[test]
fn generation_config_decides_where_outputs_end() {
    let ends = |config: Value, generation: Value| {
        let config = load(&config, Some(generation)).unwrap();
        assert_eq!(config.shape().eos_tokens, config.end_tokens());
        config.end_tokens().to_vec()
    };
    assert_eq!(ends(json!({ "eos_token_id": 9 }), json!({ "eos_token_id": [5, 6] })), [5, 6]);
    assert_eq!(ends(json!({ "eos_token_id": [9, 8] }), json!({ "eos_token_id": 4 })), [4]);
    assert_eq!(ends(json!({ "eos_token_id": [9, 8] }), json!({ "bos_token_id": 4 })), [9, 8]);
    assert_eq!(ends(json!({ "eos_token_id": null }), json!({ "eos_token_id": 4 })), [4]);
    assert_eq!(ends(json!({}), json!({})), [2]);
}

#[test]
fn what_is_not_implemented_is_refused_with_the_reason() {
    let check = |key: &str, value: Value, expected: &str| {
        let error = load(&json!({ key: value }), None).unwrap_err();
        assert!(error.starts_with("DIR/config.json: ") && error.contains(expected), "{error}");
    };
    check("attention_bias", true.into(), "attention_bias is true, but projections with a bias is not");
    check("mlp_bias", true.into(), "mlp_bias is true");
    check("hidden_act", "gelu".into(), "hidden_act is \"gelu\", but a Llama has silu");
    check("sliding_window", 4096.into(), "sliding_window is 4096, but attention to a window");
    check("rope_interleaved", true.into(), "rope_interleaved is true");
    check("partial_rotary_factor", 0.5.into(), "partial_rotary_factor is 0.5");
    check("quantization_config", json!({ "bits": 4 }), "quantization_config is {\"bits\":4}");
    check("layer_types", json!(["full_attention", "sliding_attention"]), "\"sliding_attention\"");
    for kind in ["dynamic", "yarn", "longrope", "proportional"] {
        for (key, name) in [("rope_scaling", "type"), ("rope_parameters", "rope_type")] {
            check(key, json!({ name: kind, "factor": 2.0 }), &format!("the rope scaling is `{kind}`"));
        }
    }
    check("rope_parameters", json!({ "partial_rotary_factor": 0.25 }), "partial_rotary_factor is not 1");
    // What changes nothing.
    for (key, value) in [
        ("attention_bias", json!(false)),
        ("sliding_window", json!(null)),
        ("partial_rotary_factor", json!(1.0)),
        ("pretraining_tp", json!(4)),
        ("hidden_act", json!("swish")),
        ("layer_types", json!(["full_attention"])),
    ] {
        assert_eq!(load(&json!({ key: value }), None), load(&json!({}), None), "{key}");
    }
}

#[test]
fn values_that_no_llama_has_are_refused_with_file_and_key() {
    let check = |config: Value, expected: &str| {
        let error = load(&config, None).unwrap_err();
        assert!(error.starts_with(&format!("DIR/config.json: {expected}")), "{error}");
    };
    for key in [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "vocab_size",
        "max_position_embeddings",
    ] {
        for (value, reason) in [(0, "at least 1"), (-3, "at least 1"), (1_i64 << 40, "at most")] {
            let config = json!({ "head_dim": 2, "num_key_value_heads": 32, key: value });
            check(config, &format!("{key} is {value}, but must be {reason}"));
        }
        check(json!({ key: "x" }), &format!("{key}: invalid type: string \"x\""));
    }
    check(json!({ "rms_norm_eps": 0 }), "rms_norm_eps is 0, but must be positive");
    check(
        json!({ "num_attention_heads": 9, "num_key_value_heads": 2, "head_dim": 2 }),
        "num_attention_heads is 9",
    );
    check(json!({ "head_dim": 15 }), "head_dim is 15, but must be even");
    check(json!({ "hidden_size": 63 }), "hidden_size is 63, but must be a multiple of num_attention_heads");
    check(json!({ "rope_theta": -1.0 }), "rope_theta is -1, but must be positive");
    let linear = |factor: Value| json!({ "rope_scaling": { "type": "linear", "factor": factor } });
    check(linear(json!(null)), "the rope scaling `linear` has no factor");
    check(linear(json!(0)), "factor of the rope scaling is 0, but must be positive");
    let llama3 = |low: Value, high: f64| {
        let factors =
            json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": low, "high_freq_factor": high });
        json!({ "rope_scaling": factors })
    };
    check(llama3(json!(null), 4.0), "the rope scaling `llama3` has no low_freq_factor");
    check(llama3(json!(4.0), 4.0), "high_freq_factor of the rope scaling is 4, but must be above");
    for key in ["eos_token_id", "bos_token_id"] {
        check(json!({ key: 32_000 }), &format!("{key} is 32000, but the vocabulary has tokens 0 to 31999"));
    }
    check(json!({ "eos_token_id": null }), "eos_token_id names no token");
}

#[test]
fn scalings_survive_writing() {
    let plain = LlamaConfig::published("smollm2-135m").unwrap();
    for rope_scaling in [
        RopeScaling::Default,
        RopeScaling::Linear { factor: 2.5 },
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 1024,
        },
    ] {
        saved(&LlamaConfig { rope_scaling, eos_token_id: vec![2, 7], bos_token_id: None, ..plain.clone() });
    }
}

/// Published sizes, and the bytes that a token reads: facts about SmolLM2-135M.
#[test]
fn costs_are_those_of_the_weights() {
    let config = LlamaConfig::published("smollm2-135m").unwrap();
    let count: i64 = config.parameters().iter().map(|tensor| tensor.shape.iter().product::<i64>()).sum();
    assert_eq!(count, 134_515_008);
    let shape = config.shape();
    let of_layers: i64 = 134_515_008 - 49_152 * 576 - (30 * 2 + 1) * 576;
    assert_eq!(shape.bytes.layer * 30.0, 4.0 * of_layers as f64);
    assert_eq!(shape.flops.layer * 30.0, 2.0 * of_layers as f64);
    assert_eq!(shape.bytes.head, 4.0 * 49_152.0 * 576.0);
    // 3 heads of 64, keys and values.
    assert_eq!(shape.bytes.layer_per_key, 4.0 * 2.0 * 192.0);
    assert_eq!(shape.bytes.skipped_layer, 4.0 * 2.0 * 192.0 * 576.0);
    // Scores and weighted sums of 9 heads.
    assert_eq!(shape.flops.layer_per_key, 2.0 * 2.0 * 9.0 * 64.0);
    assert_eq!(shape.flops.layer_per_source_token, shape.flops.layer_per_key);
    assert_eq!(shape.flops.first_reach_per_source_token, 0.0);
}

#[test]
fn the_type_decides_how_a_configuration_is_read() {
    let found = |text: &str| {
        let folder = folder(&[("config.json", text)]);
        let config = load_config(folder.path()).map_err(|error| error.to_string())?;
        Ok::<_, String>(config.shape().num_layers)
    };
    assert_eq!(found(r#"{ "model_type": "llama" }"#), Ok(32));
    assert_eq!(found(r#"{ "model_type": "t5" }"#), Ok(6));
    assert_eq!(found("{}"), Ok(6));
    let error = found(r#"{ "model_type": "bart" }"#).unwrap_err();
    assert!(error.ends_with("there is no model of the type `bart`: there are t5, mt5, llama"), "{error}");
}
