//! Which tokens sources and targets begin and end with, and what the finished checkpoint says of it.

use std::path::{Path, PathBuf};

use calm_checkpoint::{T5Config, Tokenizer};
use calm_train::corpus::Corpus;
use calm_train::{Error, TrainConfig, TrainOptions, prepare, train};
use serde_json::{Value, json};
use tch::Device;

use crate::tiny::Tiny;

const OPTIONS: TrainOptions =
    TrainOptions { device: Device::Cpu, time_limit: None, pause_after: None, overwrite: false };

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Writes the tokenizer of `tiny` with a change.
fn write(tiny: &Tiny, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut file = read(&tiny.path("tokenizer.json"));
    change(&mut file);
    let path = tiny.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, file.to_string()).unwrap();
    path
}

/// Puts `</s>` first, `<unk>` second and `<pad>` third.
fn reorder(file: &mut Value) {
    for (id, name) in ["</s>", "<unk>", "<pad>"].into_iter().enumerate() {
        file["model"]["vocab"][id][0] = name.into();
        file["added_tokens"][id]["content"] = name.into();
    }
    file["model"]["unk_id"] = 1.into();
    file["post_processor"]["special_tokens"]["</s>"]["ids"] = json!([0]);
}

fn short_run(tiny: &Tiny, name: &str) -> TrainConfig {
    let mut config = tiny.config(name);
    config.schedule.steps = 1;
    config.schedule.warmup_steps = 1;
    config.classifier.steps = 0;
    config
}

/// The tokens of all held-out sources and targets.
fn held_out(config: &TrainConfig, tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
    let corpus = Corpus::open(config, tokenizer).unwrap();
    let tokens = corpus.held_out().flat_map(|task| task.pairs.to_vec());
    tokens.flat_map(|pair| [pair.source, pair.target]).collect()
}

#[test]
fn a_new_model_begins_and_ends_with_the_tokens_of_its_tokenizer() {
    let tiny = Tiny::new();
    for (name, without_template) in [("with", false), ("without", true)] {
        let mut config = short_run(&tiny, name);
        config.tokenizer = Some(write(&tiny, &format!("{name}.json"), |file| {
            reorder(file);
            if without_template {
                file["post_processor"] = Value::Null;
            }
        }));
        train(&config, &OPTIONS).unwrap();
        for file in ["config.json", "generation_config.json"] {
            let keys = read(&config.output.join(file));
            let end = if file == "config.json" { json!(0) } else { json!([0]) };
            let expected = (&json!(2), &end, &json!(2));
            let found = (&keys["pad_token_id"], &keys["eos_token_id"], &keys["decoder_start_token_id"]);
            assert_eq!(found, expected, "{name}: {file}");
        }
        let published = T5Config::load(&config.output.join("config.json")).unwrap();
        assert_eq!(published.shape().eos_tokens, [0]);
        let tokenizer = Tokenizer::of_checkpoint(&config.output, &published).unwrap().unwrap();
        for tokens in held_out(&config, &tokenizer) {
            let (last, others) = tokens.split_last().unwrap();
            assert!(*last == 0 && !others.contains(&0), "{name}: {tokens:?}");
        }
    }
}

#[test]
fn padding_and_truncation_of_the_tokenizer_change_no_example() {
    let tiny = Tiny::new();
    let bytes = |name: &str, tokenizer: PathBuf| {
        let mut config = tiny.config(name);
        config.tokenizer = Some(tokenizer);
        prepare(&config).unwrap();
        let tokenizer = Tokenizer::load(&config.tokenizer_file()).unwrap().for_new_model().unwrap();
        held_out(&config, &tokenizer)
    };
    let expected = bytes("plain", tiny.path("tokenizer.json"));
    let padded = write(&tiny, "padded.json", |file| {
        file["padding"] = json!({
            "strategy": { "Fixed": 16 }, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
        });
        file["truncation"] =
            json!({ "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0 });
    });
    assert_eq!(bytes("padded", padded), expected);
    assert_eq!(
        bytes("plain-again", write(&tiny, "bare.json", |file| file["post_processor"] = Value::Null)),
        expected
    );
}

#[test]
fn a_checkpoint_that_is_trained_further_keeps_its_tokens() {
    let tiny = Tiny::new();
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../calm-model/tests/reference/v1_1");
    let init = tiny.path("init");
    std::fs::create_dir(&init).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(reference.join(file), init.join(file)).unwrap();
    }
    let tokenizer = write(&tiny, "init/tokenizer.json", |file| file["post_processor"] = Value::Null);
    let generation = json!({ "eos_token_id": [1, 9], "decoder_start_token_id": 0, "num_beams": 4 });
    std::fs::write(init.join("generation_config.json"), generation.to_string()).unwrap();
    let mut config = short_run(&tiny, "further");
    config.model = None;
    config.tokenizer = None;
    config.init = Some(init.clone());
    train(&config, &OPTIONS).unwrap();
    let published = T5Config::load(&config.output.join("config.json")).unwrap();
    assert_eq!((published.start_token(), published.end_tokens()), (0, &[1, 9][..]));
    assert_eq!(published.eos_token_id, [1]);
    assert_eq!(read(&config.output.join("generation_config.json"))["num_beams"], 4);

    // Another order of the special tokens is not what the checkpoint was trained with.
    write(&tiny, "init/tokenizer.json", reorder);
    let error = train(&config, &OPTIONS).expect_err("the tokenizer is of another model");
    assert!(matches!(error, Error::Checkpoint(_)));
    let expected = format!(
        "{}: it ends a text with token 0, `</s>`, but eos_token_id of config.json is 1",
        tokenizer.display()
    );
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[test]
fn a_tokenizer_without_special_tokens_is_refused_before_anything_is_made() {
    let tiny = Tiny::new();
    let mut config = short_run(&tiny, "model");
    let nothing = |file: &mut Value| {
        file["post_processor"] = Value::Null;
        file["added_tokens"] = json!([]);
        for (id, name) in ["x1", "x2", "x3"].into_iter().enumerate() {
            file["model"]["vocab"][id][0] = name.into();
        }
    };
    config.tokenizer = Some(write(&tiny, "nothing.json", nothing));
    let error = train(&config, &OPTIONS).expect_err("nothing ends a text").to_string();
    assert!(
        error.contains("nothing.json: it puts no token behind a text and has no special token `</s>`"),
        "{error}"
    );
    assert!(!config.output.exists() && !config.checkpoints.exists());
}
