use calm_checkpoint::{T5Config, fingerprint};
use serde_json::{Value, json};

use crate::golden::{folder, golden, load};

#[test]
fn keys_that_are_left_out_are_those_of_transformers() {
    for case in golden().configs {
        let config = load(&case.written.to_string(), None).unwrap();
        let mut found = serde_json::to_value(&config).unwrap();
        found["num_decoder_layers"] = config.decoder_layers().into();
        for (key, expected) in case.read.as_object().unwrap() {
            assert_eq!(found[key], *expected, "{key} of {}", case.written);
        }
        assert_eq!(config.head_scale() != 1.0, case.scaled, "{}", case.written);
        assert_eq!(config.start_token(), 0);
    }
}

#[test]
fn generation_config_decides_where_outputs_begin_and_end() {
    for case in golden().generation {
        let config = load("{\"eos_token_id\": 9}", Some(&case.written.to_string())).unwrap();
        assert_eq!(
            (config.start_token(), config.end_tokens()),
            (case.start, &case.ends[..]),
            "{}",
            case.written
        );
        assert_eq!(config.shape().eos_tokens, case.ends);
        // What the training ends with stays what config.json says.
        assert_eq!(config.eos_token_id, [9]);
    }
    let config = load("{\"eos_token_id\": [3, 4], \"decoder_start_token_id\": 2}", Some("{}")).unwrap();
    assert_eq!((config.start_token(), config.end_tokens()), (2, &[3, 4][..]));
    let config = load("{\"eos_token_id\": null}", Some("{\"eos_token_id\": 6}")).unwrap();
    assert_eq!(config.end_tokens(), [6]);
    // Where there is no token to fill up with, transformers takes the first that ends an output.
    assert_eq!(load("{\"pad_token_id\": -1, \"eos_token_id\": [8, 1]}", None).unwrap().pad_token_id, 8);
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_configuration() {
    let with_mark = |text: &str| format!("\u{feff}{text}");
    let plain = load("{\"d_model\": 96}", Some("{\"eos_token_id\": 5}"));
    let marked = load(&with_mark("{\"d_model\": 96}"), Some(&with_mark("{\"eos_token_id\": 5}")));
    assert_eq!(marked, plain);
    assert_eq!(plain.unwrap().d_model, 96);
}

#[test]
fn values_that_no_t5_has_are_refused_with_file_and_key() {
    let check = |key: &str, value: Value, expected: &str| {
        let error = load(&json!({ key: value }).to_string(), None).unwrap_err();
        assert!(error.starts_with(&format!("DIR/config.json: {expected}")), "{error}");
    };
    for key in ["d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads", "vocab_size"] {
        for (value, reason) in
            [(0, "must be at least 1"), (-3, "must be at least 1"), (1_i64 << 40, "must be at most")]
        {
            check(key, value.into(), &format!("{key} is {value}, but {reason}"));
        }
        check(key, "x".into(), &format!("{key}: invalid type: string \"x\""));
        check(key, 1.5.into(), &format!("{key}: invalid type: floating point `1.5`"));
    }
    for key in ["num_layers", "num_decoder_layers"] {
        check(key, 10_001.into(), &format!("{key} is 10001, but must be at most 10000"));
    }
    // Without the key the token is that of transformers.
    check("vocab_size", 1.into(), "eos_token_id is 1, but the vocabulary has tokens 0 to 0");
    for epsilon in [0.0, -1e-6, 1e-60] {
        check(
            "layer_norm_epsilon",
            epsilon.into(),
            &format!("layer_norm_epsilon is {epsilon}, but must be positive"),
        );
    }
    check("relative_attention_num_buckets", 3.into(), "relative_attention_num_buckets is 3");
    check("relative_attention_max_distance", 16.into(), "relative_attention_num_buckets is 32");
    check("feed_forward_proj", "gated-tanh".into(), "feed_forward_proj: unknown variant `gated-tanh`");
    check("dense_act_fn", "gelu".into(), "dense_act_fn is gelu, but feed_forward_proj is relu");
    check("is_gated_act", true.into(), "is_gated_act is true, but feed_forward_proj is relu");
    check("tie_word_embeddings", "yes".into(), "tie_word_embeddings: invalid type");
    for key in ["eos_token_id", "pad_token_id", "decoder_start_token_id", "bos_token_id"] {
        check(key, 32_128.into(), &format!("{key} is 32128, but the vocabulary has tokens 0 to 32127"));
        check(key, (-2).into(), &format!("{key} is -2, but the vocabulary has tokens 0 to 32127"));
        check(key, "</s>".into(), &format!("{key}: "));
    }
    check("eos_token_id", json!([1, "</s>"]), "eos_token_id: expected a token or a list of tokens");
    check("eos_token_id", json!([1, 40_000]), "eos_token_id is 40000");
    check("eos_token_id", json!([]), "eos_token_id names no token");
    check("eos_token_id", Value::Null, "eos_token_id names no token");

    let error = load("{}", Some("{\"eos_token_id\": \"</s>\"}")).unwrap_err();
    assert!(error.starts_with("DIR/generation_config.json: eos_token_id: expected a token or"), "{error}");
    let error = load("{}", Some("{\"decoder_start_token_id\": 32128}")).unwrap_err();
    assert!(error.starts_with("DIR/generation_config.json: decoder_start_token_id is 32128"), "{error}");
    for text in ["", "{", "[]", "{\"d_model\": 512,}", "null"] {
        let error = load(text, None).unwrap_err();
        assert!(error.starts_with("DIR/config.json: "), "{error}");
    }
}

#[test]
fn what_is_saved_is_what_was_loaded() {
    for written in [json!({ "eos_token_id": [1, 5] }), json!({ "eos_token_id": 4, "num_decoder_layers": 2 })]
    {
        let config = load(&written.to_string(), None).unwrap();
        let folder = folder(&[]);
        config.save(folder.path()).unwrap();
        let path = folder.path().join("config.json");
        assert_eq!(T5Config::load(&path).unwrap(), config);
        let saved: Value = calm_files::read_json(&path).unwrap();
        assert_eq!(saved["eos_token_id"], written["eos_token_id"]);
    }
}

#[test]
fn the_fingerprint_covers_generation_config() {
    let folder = folder(&[("config.json", "{}"), ("model.safetensors", "")]);
    std::fs::write(folder.path().join("model.safetensors"), "weights").unwrap();
    let without = fingerprint(folder.path()).unwrap();
    let with = |text: &str| {
        std::fs::write(folder.path().join("generation_config.json"), text).unwrap();
        fingerprint(folder.path()).unwrap()
    };
    let (one, two) = (with("{\"eos_token_id\": 1}"), with("{\"eos_token_id\": 2}"));
    assert!(one != two && one != without);
}
